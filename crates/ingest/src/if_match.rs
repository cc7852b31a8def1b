//! `If-Match` of changes: the version that somebody has seen.

use axum::http::{HeaderMap, HeaderValue, header};
use web::problem::{Kind, Problem};

/// The version that the change is of; none: whichever is there.
///
/// # Errors
/// The problem 428 without the header, 400 where it is no tag.
pub(crate) fn required(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    if !headers.contains_key(header::IF_MATCH) {
        return Err(Problem::new(Kind::PreconditionRequired, "The request has no `If-Match`."));
    }
    optional(headers)
}

/// No version: other tags than ours match nothing, and a weak one never does (RFC 9110 section 13.1.1).
const NO_VERSION: i64 = -1;

/// The same where a request without the header means whichever is there.
///
/// # Errors
/// The problem 400 where it is no tag.
pub(crate) fn optional(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(tag) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let tag = tag.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(None);
    }
    if !tag.trim_start_matches("W/").starts_with('"') || tag.len() < 2 || !tag.ends_with('"') {
        let detail = format!("`If-Match` is an `ETag` such as `\"3\"`, not `{tag}`.");
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
    Ok(Some(version.unwrap_or(NO_VERSION)))
}

/// The `ETag` of a version.
pub(crate) fn tag(version: i64) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(format!("\"{version}\"")).map_err(Problem::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_is_not_ours_matches_nothing_and_no_tag_is_an_error() {
        let read = |text: &'static str| {
            optional(&[(header::IF_MATCH, HeaderValue::from_static(text))].into_iter().collect())
                .map_err(|problem| problem.kind())
        };
        assert_eq!((read("\"3\""), read("*"), optional(&HeaderMap::new()).unwrap()), (Ok(Some(3)), Ok(None), None));
        for other in ["\"three\"", "W/\"3\"", "\"3\", \"4\"", "\"\""] {
            assert_eq!(read(other), Ok(Some(NO_VERSION)), "{other}");
        }
        for wrong in ["", "3", "\"3", "W/3\"", "\""] {
            assert_eq!(read(wrong), Err(Kind::BadRequest), "{wrong}");
        }
        assert_eq!(required(&HeaderMap::new()).unwrap_err().kind(), Kind::PreconditionRequired);
    }
}
