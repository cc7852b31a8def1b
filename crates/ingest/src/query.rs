//! What the parameters of lists have in common.

use events::time::read_rfc3339;
use web::problem::{Kind, Problem};

/// A time, in milliseconds since the Unix epoch, or the problem 400.
pub(crate) fn time(name: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || {
        let detail = format!("`{name}` is a time such as 2026-01-05T09:30:00Z (RFC 3339), not `{text}`.");
        Problem::new(Kind::BadRequest, detail)
    };
    read_rfc3339(text).map(Some).ok_or_else(wrong)
}

/// The most entries of a page, or the problem 400.
pub(crate) fn limit(asked: Option<u32>, usual: u32, max: u32) -> Result<u32, Problem> {
    match asked.unwrap_or(usual) {
        limit if (1..=max).contains(&limit) => Ok(limit),
        _ => Err(Problem::new(Kind::BadRequest, format!("`limit` is a number from 1 to {max}."))),
    }
}
