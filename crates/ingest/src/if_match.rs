//! `If-Match` of changes: the version that somebody has seen.

use axum::http::{HeaderMap, HeaderValue, header};
use web::problem::{Kind, Problem};

/// The version that the change is of; none: whichever is there.
///
/// # Errors
/// The problem 428 without the header, 400 where it names no version.
pub(crate) fn required(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    if !headers.contains_key(header::IF_MATCH) {
        return Err(Problem::new(Kind::PreconditionRequired, "The request has no `If-Match`."));
    }
    optional(headers)
}

/// The same where a request without the header means whichever is there.
///
/// # Errors
/// The problem 400 where it names no version.
pub(crate) fn optional(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(tag) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let tag = tag.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(None);
    }
    let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
    version
        .map(Some)
        .ok_or_else(|| Problem::new(Kind::BadRequest, format!("`If-Match` is an `ETag` such as `\"3\"`, not `{tag}`.")))
}

/// The `ETag` of a version.
pub(crate) fn tag(version: i64) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(format!("\"{version}\"")).map_err(Problem::internal)
}
