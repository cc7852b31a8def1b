//! Bodies that are JSON objects. serde would read a structure from an array of its members' values, too.

use axum::body::Bytes;
use axum::http::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::Value;
use web::problem::{Kind, Problem};

use crate::request_parts::parse_body;

/// The object in a body, or the problem 400, which says the `form` that it must have.
pub(crate) fn object<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes, form: &str) -> Result<T, Problem> {
    let value = parse_body(headers, body)?;
    refuse_other(&value, form)?;
    serde_json::from_value(value).map_err(|error| malformed(form, &error))
}

/// [`object`], where there need be no body.
pub(crate) fn object_if_any<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: &Bytes,
    form: &str,
) -> Result<T, Problem> {
    if body.is_empty() { Ok(T::default()) } else { object(headers, body, form) }
}

/// The object in one line or element of a body. A column counts within it.
pub(crate) fn object_of_item<T: DeserializeOwned>(item: &[u8], form: &str) -> Result<T, Problem> {
    let wrong = |error: serde_json::Error| {
        let problem = match error.is_data() {
            true => malformed(form, &error),
            false => Problem::new(Kind::InvalidJson, format!("{error}.")),
        };
        problem.with("column", error.column())
    };
    if !item.trim_ascii_start().starts_with(b"{") {
        refuse_other(&serde_json::from_slice(item).map_err(wrong)?, form)?;
    }
    serde_json::from_slice(item).map_err(wrong)
}

fn malformed(form: &str, error: &serde_json::Error) -> Problem {
    Problem::new(Kind::BadRequest, format!("{form}: {error}."))
}

fn refuse_other(value: &Value, form: &str) -> Result<(), Problem> {
    if value.is_object() { Ok(()) } else { Err(Problem::new(Kind::BadRequest, format!("{form}: it is no object."))) }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        reason: Option<String>,
    }

    const FORM: &str = "The body is `{\"reason\": \"...\"}`";

    #[test]
    fn an_array_of_a_structures_values_is_no_object() {
        let headers = [(axum::http::header::CONTENT_TYPE, "application/json".parse().unwrap())].into_iter().collect();
        let read = |body: &'static str| object_if_any::<Order>(&headers, &Bytes::from_static(body.as_bytes()), FORM);
        assert_eq!(read(r#"{"reason":"why"}"#).unwrap().reason.as_deref(), Some("why"));
        assert_eq!(read("").unwrap(), Order::default());
        for (body, kind) in [
            (r#"["why"]"#, Kind::BadRequest),
            ("[]", Kind::BadRequest),
            ("null", Kind::BadRequest),
            (r#"{"reson":"why"}"#, Kind::BadRequest),
            ("{", Kind::InvalidJson),
        ] {
            assert_eq!(read(body).unwrap_err().kind(), kind, "{body}");
            assert_eq!(object_of_item::<Order>(body.as_bytes(), FORM).unwrap_err().kind(), kind, "{body}");
        }
        let bytes = b"{\"reason\":\"\xff\"}";
        assert_eq!(object_of_item::<Order>(bytes, FORM).unwrap_err().kind(), Kind::InvalidJson);
        assert_eq!(object::<Order>(&headers, &Bytes::new(), FORM).unwrap_err().kind(), Kind::InvalidJson);
    }
}
