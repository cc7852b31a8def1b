//! The body of a job that succeeded, as HTTP serves it.
//!
//! Two ways lead to it. A caller who waited for the job gets its answer: status, headers and body, as the flow or its
//! service formed it. The address of the result serves the same body as a resource: with an entity tag, conditions and
//! ranges (RFC 9110 sections 13 and 14), and the status 200, whatever the answer's was.
//!
//! A body may lie in the store of documents: then the answer is decided first, and [`fill`] brings the bytes.
//!
//! Promise: whatever a service has sent as a body, a browser does not run it on our origin.

use std::ops::Range;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use documents::{Error, Owner};
use flow::answer::{Answer, Body as AnswerBody, Content, content};
use flow::body::Payload;
use flow::document::{StoredDocument, linked, sha256_of, stored_in};
use flow::view::JobView;
use serde_json::Value;
use web::problem::{Kind, Problem, Verbatim};

use crate::answer::document_address;
use crate::state::Api;

/// Headers of an answer that describe its body, and so are those of the result too.
const OF_BODY: [HeaderName; 3] = [header::CONTENT_DISPOSITION, header::CONTENT_LANGUAGE, header::CONTENT_TYPE];
/// A page of its own, without an origin, that runs nothing and loads nothing.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const ATTACHMENT: HeaderValue = HeaderValue::from_static("attachment");
/// Digits of the digest in an entity tag: 128 bits.
const TAG_DIGITS: usize = 32;
/// The time for beginning to read from the store, and for finding room for it.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause until a caller asks again for what lies in a store that does not answer, in seconds.
const RETRY_AFTER_S: u64 = 5;

/// The body of an answer that lies in the store, whole or in part.
#[derive(Debug, Clone)]
struct InStore {
    document: StoredDocument,
    range: Option<Range<u64>>,
}

/// The preconditions and the range of a request for a result.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    /// The entity tags that the caller has.
    known: Vec<String>,
    range: Option<String>,
    if_range: Option<String>,
}

impl Conditions {
    /// A range is for GET only (RFC 9110 section 14.2).
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| Some(headers.get(name)?.to_str().ok()?.trim().to_owned());
        let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let tags = known.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/").to_owned());
        let range = text(header::RANGE).filter(|_| *method == Method::GET);
        Self { known: tags.collect(), range, if_range: text(header::IF_RANGE) }
    }

    fn knows(&self, tag: &str) -> bool {
        self.known.iter().any(|known| known == tag || known == "*")
    }

    /// The range to serve of so many bytes; none: all of them.
    fn range(&self, tag: &str, size: u64) -> Option<Result<Range<u64>, Unsatisfiable>> {
        // A date cannot be compared with: a result has no time of its own. Nor does a weak tag do (section 13.1.5).
        let is_current = self.if_range.as_ref().is_none_or(|known| known == tag);
        self.range.as_deref().filter(|_| is_current).and_then(|range| parse_range(range, size))
    }
}

/// No byte lies within the range.
#[derive(Debug, PartialEq, Eq)]
struct Unsatisfiable;

/// A single range of bytes. Anything else is passed over, as RFC 9110 section 14.2 allows: other units, several ranges,
/// and what is no range.
fn parse_range(text: &str, size: u64) -> Option<Result<Range<u64>, Unsatisfiable>> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = (first.trim(), last.trim());
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(length)) if first.is_empty() => size.saturating_sub(length)..size,
        _ => return None,
    };
    Some(if range.is_empty() { Err(Unsatisfiable) } else { Ok(range) })
}

/// The answer to a caller who has waited for the job. `prefix`: the path of the public URL.
pub(crate) fn answer(prefix: &str, view: &JobView) -> Response {
    let given = view.answer.as_ref();
    let Content { media_type, payload } = content_of(prefix, view);
    let status = given.and_then(|answer| StatusCode::from_u16(answer.status).ok()).unwrap_or(StatusCode::OK);
    let is_bodiless = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT].contains(&status);
    let mut response = match is_bodiless {
        true => status.into_response(),
        false => (status, whole(payload)).into_response(),
    };
    let headers = response.headers_mut();
    headers.extend(given.into_iter().flat_map(headers_of));
    if is_bodiless {
        headers.remove(header::CONTENT_TYPE);
    } else {
        describe(headers, &media_type);
    }
    // An error that the flow answers with is no problem of ours.
    response.extensions_mut().insert(Verbatim);
    response
}

/// The result as a resource of its own, or the part of it that was asked for; 304 for one that the caller has.
pub(crate) fn stored(prefix: &str, view: &JobView, conditions: &Conditions) -> Result<Response, Problem> {
    let given = view.answer.iter().flat_map(headers_of).filter(|(name, _)| OF_BODY.contains(name));
    resource(view, content_of(prefix, view), given.collect(), conditions)
}

/// A document within the result in the same way, by its name.
pub(crate) fn document(view: &JobView, name: &str, conditions: &Conditions) -> Result<Response, Problem> {
    let body = view.answer.as_ref().and_then(value_of);
    let found = view.result.iter().chain(body).find_map(|value| stored_in(value, name));
    let document = found.ok_or_else(|| {
        let detail = format!("The result of the job has no document `{name}` in the store.");
        Problem::new(Kind::NotFound, detail).with_job(view.job)
    })?;
    let content = Content { media_type: document.media_type.clone(), payload: Payload::Stored(document) };
    resource(view, content, HeaderMap::new(), conditions)
}

fn resource(view: &JobView, content: Content, given: HeaderMap, conditions: &Conditions) -> Result<Response, Problem> {
    let Content { media_type, payload } = content;
    let (digest, size) = match &payload {
        Payload::Bytes(bytes) => (sha256_of(&[media_type.as_bytes(), b"\0", bytes]), bytes.len() as u64),
        Payload::Stored(document) => {
            (sha256_of(&[media_type.as_bytes(), b"\0", document.sha256.as_bytes()]), document.size)
        }
    };
    let tag = format!("\"{}\"", digest.get(..TAG_DIGITS).unwrap_or(&digest));
    let mut response = if conditions.knows(&tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match conditions.range(&tag, size) {
            None => whole(payload),
            Some(Ok(range)) => part(payload, range, size)?,
            Some(Err(Unsatisfiable)) => return Err(unsatisfiable(view, size)),
        }
    };
    let is_unchanged = response.status() == StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    headers.insert(header::ETAG, HeaderValue::try_from(tag).map_err(Problem::internal)?);
    if !is_unchanged {
        headers.extend(given);
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        describe(headers, &media_type);
    }
    Ok(response)
}

fn whole(payload: Payload) -> Response {
    match payload {
        Payload::Bytes(bytes) => Body::from(bytes).into_response(),
        Payload::Stored(document) => Extension(InStore { document, range: None }).into_response(),
    }
}

fn part(payload: Payload, range: Range<u64>, size: u64) -> Result<Response, Problem> {
    let told = [(header::CONTENT_RANGE, format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1)))];
    let head = (StatusCode::PARTIAL_CONTENT, told);
    let place = |at: u64| usize::try_from(at).map_err(Problem::internal);
    Ok(match payload {
        Payload::Bytes(bytes) => {
            (head.0, head.1, Bytes::from(bytes).slice(place(range.start)?..place(range.end)?)).into_response()
        }
        Payload::Stored(document) => {
            (head.0, head.1, Extension(InStore { document, range: Some(range) })).into_response()
        }
    })
}

/// Brings the body of an answer that lies in the store, as it is read. Nothing is read for a HEAD.
pub(crate) async fn fill(
    api: &Api,
    owner: Owner<'_>,
    method: &Method,
    mut response: Response,
) -> Result<Response, Problem> {
    let Some(InStore { document, range }) = response.extensions_mut().remove() else { return Ok(response) };
    let size = range.as_ref().map_or(document.size, |range| range.end - range.start);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    if *method == Method::HEAD {
        return Ok(response);
    }
    let reading = tokio::time::timeout(READ_TIMEOUT, api.documents()?.read(owner, &document, range)).await;
    let reading = reading.map_err(|_| unavailable("The store of documents has not answered in time."))?;
    let reading = reading.map_err(|error| no_document(error).with_job(owner.job))?;
    *response.body_mut() = Body::from_stream(reading);
    Ok(response)
}

/// The problem of a document that cannot be had, or not be kept.
pub(crate) fn no_document(error: Error) -> Problem {
    match error {
        Error::Unavailable(_) => unavailable("The store of documents does not answer.").caused_by(error),
        Error::Gone => Problem::new(Kind::Gone, "The document is not in the store any more."),
        Error::Changed => Problem::internal(error),
        Error::TooLarge(_) => Problem::new(Kind::PayloadTooLarge, format!("{error}.")),
    }
}

fn unavailable(detail: &str) -> Problem {
    Problem::new(Kind::NotReady, detail).retry_after_s(RETRY_AFTER_S)
}

fn unsatisfiable(view: &JobView, size: u64) -> Problem {
    let problem = Problem::new(Kind::RangeNotSatisfiable, format!("The result has {size} bytes."));
    let told = HeaderValue::try_from(format!("bytes */{size}")).ok();
    let problem = problem.with_job(view.job);
    told.into_iter().fold(problem, |problem, told| problem.with_header(header::CONTENT_RANGE, told))
}

/// The body, in which documents that lie in the store are told by their addresses.
fn content_of(prefix: &str, view: &JobView) -> Content {
    let told = |value: &Value| linked(value, &|name| document_address(prefix, view.job, name));
    let result = view.result.as_ref().unwrap_or(&Value::Null);
    let told_answer = view.answer.as_ref().and_then(|answer| {
        let body = AnswerBody::Value(told(value_of(answer)?)?);
        Some(Answer { body, ..answer.clone() })
    });
    content(told_answer.as_ref().or(view.answer.as_ref()), told(result).as_ref().unwrap_or(result))
}

/// The value that an answer has in place of the result.
fn value_of(answer: &Answer) -> Option<&Value> {
    match &answer.body {
        AnswerBody::Value(value) => Some(value),
        AnswerBody::OfResult | AnswerBody::Bytes(_) => None,
    }
}

/// The headers of an answer, as far as they are headers.
fn headers_of(answer: &Answer) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let header = |(name, value): &(String, String)| {
        Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::try_from(value.as_str()).ok()?))
    };
    answer.headers.iter().filter_map(header)
}

/// The type of a body, and how a browser is to take it: as nothing but that type, in a page without an origin, and
/// unless somebody says otherwise as a file. Without this, a page or a picture that a service returns could run scripts
/// as ours.
fn describe(headers: &mut HeaderMap, media_type: &str) {
    if let Ok(media_type) = HeaderValue::try_from(media_type) {
        headers.insert(header::CONTENT_TYPE, media_type);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(header::CONTENT_SECURITY_POLICY, SANDBOX);
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_plain = essence == "application/json" || essence == "text/plain" || essence.ends_with("+json");
    if !is_plain {
        headers.entry(header::CONTENT_DISPOSITION).or_insert(ATTACHMENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_range_of_bytes_is_read_and_all_else_passed_over() {
        for (text, range) in [
            ("bytes=0-3", Some(Ok(0..4))),
            ("bytes=2-2", Some(Ok(2..3))),
            ("bytes=4-", Some(Ok(4..10))),
            ("bytes=-3", Some(Ok(7..10))),
            ("bytes=-99", Some(Ok(0..10))),
            ("bytes=8-99999999999999999999999", Some(Ok(8..10))),
            ("Bytes = 1 - 2", Some(Ok(1..3))),
            ("bytes=10-", Some(Err(Unsatisfiable))),
            ("bytes=10-12", Some(Err(Unsatisfiable))),
            ("bytes=-0", Some(Err(Unsatisfiable))),
            ("bytes=3-2", None),
            ("bytes=0-1,4-5", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("lines=0-3", None),
            ("bytes", None),
        ] {
            assert_eq!(parse_range(text, 10), range, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Some(Err(Unsatisfiable)));
    }

    #[test]
    fn a_range_holds_only_while_its_condition_does_and_only_for_get() {
        let conditions = |method: Method, if_range: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-3"));
            headers.extend(if_range.map(|tag| (header::IF_RANGE, HeaderValue::from_static(tag))));
            Conditions::of(&method, &headers).range("\"a\"", 10)
        };
        assert_eq!(conditions(Method::GET, None), Some(Ok(0..4)));
        assert_eq!(conditions(Method::GET, Some("\"a\"")), Some(Ok(0..4)));
        assert_eq!(conditions(Method::GET, Some("\"b\"")), None);
        assert_eq!(conditions(Method::GET, Some("W/\"a\"")), None, "a weak tag says nothing of bytes");
        assert_eq!(conditions(Method::GET, Some("Sun, 06 Nov 1994 08:49:37 GMT")), None);
        assert_eq!(conditions(Method::HEAD, None), None);
    }

    #[test]
    fn bodies_that_a_browser_would_run_are_files_unless_somebody_says_otherwise() {
        let said = |media_type: &str, given: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(given.map(|value| (header::CONTENT_DISPOSITION, HeaderValue::from_static(value))));
            describe(&mut headers, media_type);
            assert_eq!(
                (&headers[header::X_CONTENT_TYPE_OPTIONS], &headers["content-security-policy"]),
                (&NOSNIFF, &SANDBOX)
            );
            headers.get(header::CONTENT_DISPOSITION).map(|value| value.to_str().unwrap().to_owned())
        };
        for plain in ["application/json", "application/problem+json; charset=utf-8", "Text/Plain"] {
            assert_eq!(said(plain, None), None, "{plain}");
        }
        for file in ["text/html", "image/svg+xml", "application/pdf", "text/csv", "application/octet-stream", ""] {
            assert_eq!(said(file, None).as_deref(), Some("attachment"), "{file}");
            assert_eq!(said(file, Some("inline")).as_deref(), Some("inline"), "{file}");
        }
    }
}
