//! The parts of a request for a job, as callers write them: its key, its begin, its JSON.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use events::command::start_after_ms;
use serde::Deserialize;
use serde_json::Value;
use web::problem::{Kind, Problem};

use crate::idempotency::{KeyError, parse_key};

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The begin of the job, as callers write it; at once where they write nothing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    pub(crate) delay: Option<String>,
    /// RFC 3339.
    pub(crate) start_at: Option<String>,
}

impl Start {
    /// What the caller has written; none where that is nothing.
    pub(crate) fn written(&self) -> Option<String> {
        let (delay, start_at) = (self.delay.as_ref(), self.start_at.as_ref());
        delay.map(|delay| format!("delay {delay}")).or_else(|| start_at.map(|at| format!("start_at {at}")))
    }

    pub(crate) fn after_ms(&self, now_ms: i64) -> Result<Option<u64>, Problem> {
        start_after_ms(self.delay.as_deref(), self.start_at.as_deref(), now_ms)
            .map_err(|error| Problem::new(Kind::BadRequest, format!("{error}.")))
    }
}

/// The problem of a body that did not come whole.
pub(crate) fn unreadable(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(Kind::PayloadTooLarge, "The body is over the limit of this service.")
    } else {
        Problem::new(Kind::BadRequest, rejection.body_text())
    }
}

/// The request's `Idempotency-Key`, or the problem 400.
pub(crate) fn idempotency_key(headers: &HeaderMap, required: bool) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) if required => {
            Err(Problem::new(Kind::IdempotencyKeyMissing, "The request has no Idempotency-Key header."))
        }
        (None, _) => Ok(None),
        (Some(value), None) => parse_key(value.as_bytes()).map(Some).map_err(bad_key),
        (Some(_), Some(_)) => Err(bad_key(KeyError::Malformed)),
    }
}

pub(crate) fn bad_key(error: KeyError) -> Problem {
    Problem::new(Kind::InvalidIdempotencyKey, format!("{error}."))
}

/// The body's JSON, or the problem with its place.
pub(crate) fn parse_body(headers: &HeaderMap, body: &Bytes) -> Result<Value, Problem> {
    check_media_type(headers)?;
    parse_json(body)
}

pub(crate) fn parse_json(body: &Bytes) -> Result<Value, Problem> {
    serde_json::from_slice(body).map_err(|error| bad_json(&error))
}

pub(crate) fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let media_type = media_type(headers);
    if is_json(media_type) { Ok(()) } else { Err(unsupported(media_type)) }
}

/// The request's `Content-Type`; empty where there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The problem of a body of this type.
pub(crate) fn unsupported(media_type: &str) -> Problem {
    let detail = match media_type {
        "" => "The request has no Content-Type.".to_owned(),
        other => format!("The request's Content-Type is `{other}`."),
    };
    Problem::new(Kind::UnsupportedMediaType, detail)
}

/// The problem of a body that is no JSON, with its place.
pub(crate) fn bad_json(error: &serde_json::Error) -> Problem {
    Problem::new(Kind::InvalidJson, format!("{error}.")).with("line", error.line()).with("column", error.column())
}

/// `application/json` or any `+json`, whatever its parameters.
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.contains('/') && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn json_by_any_of_its_names_is_taken() {
        for media_type in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.order+json"] {
            assert!(is_json(media_type), "{media_type}");
        }
        for media_type in ["", "text/plain", "application/jsonx", "+json"] {
            assert!(!is_json(media_type), "{media_type}");
        }
    }

    #[test]
    fn bad_json_is_told_with_its_place() {
        let json = headers(&[("content-type", "application/json")]);
        let problem = parse_body(&json, &Bytes::from_static(b"{\n  \"a\": 1,\n}")).unwrap_err();
        assert_eq!(problem.kind(), Kind::InvalidJson);
        assert!(problem.detail().contains("line 3 column 1"), "{}", problem.detail());
        assert_eq!(parse_body(&headers(&[]), &Bytes::new()).unwrap_err().kind(), Kind::UnsupportedMediaType);
    }

    #[test]
    fn a_missing_key_is_an_error_only_where_keys_are_required() {
        assert_eq!(idempotency_key(&headers(&[]), false).unwrap(), None);
        assert_eq!(idempotency_key(&headers(&[]), true).unwrap_err().kind(), Kind::IdempotencyKeyMissing);
        assert_eq!(idempotency_key(&headers(&[("idempotency-key", "\"k\"")]), true).unwrap().unwrap(), "k");
    }
}
