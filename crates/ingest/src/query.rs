//! What the parameters of lists have in common.

use events::time::read_rfc3339;
use flow::event::JobStatus;
use sha2::{Digest, Sha256};
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

/// A text to be looked for, or the problem 400: Postgres has no text with a NUL character.
pub(crate) fn text(name: &str, text: Option<&String>) -> Result<Option<String>, Problem> {
    match text {
        Some(text) if text.contains('\0') => {
            Err(Problem::new(Kind::BadRequest, format!("`{name}` holds a NUL character.")))
        }
        text => Ok(text.cloned()),
    }
}

/// The most entries of a page, or the problem 400.
pub(crate) fn limit(asked: Option<u32>, usual: u32, max: u32) -> Result<u32, Problem> {
    match asked.unwrap_or(usual) {
        limit if (1..=max).contains(&limit) => Ok(limit),
        _ => Err(Problem::new(Kind::BadRequest, format!("`limit` is a number from 1 to {max}."))),
    }
}

/// Statuses of jobs, with commas between them, or the problem 400.
pub(crate) fn statuses(text: &str) -> Result<Vec<JobStatus>, Problem> {
    let status = |word: &str| {
        JobStatus::parse(word.trim()).ok_or_else(|| {
            let known = JobStatus::ALL.map(|status| format!("`{}`", status.as_str())).join(", ");
            let detail = format!("`status` is one or more of {known}, with commas between them, not `{word}`.");
            Problem::new(Kind::BadRequest, detail)
        })
    };
    text.split(',').map(status).collect()
}

/// The bytes of a cursor that say of which tenant it is.
pub(crate) const TENANT_BYTES: usize = 8;

/// The tenant, as cursors name it.
pub(crate) fn digest(tenant: &str) -> [u8; TENANT_BYTES] {
    let digest = Sha256::digest(tenant.as_bytes());
    std::array::from_fn(|at| digest[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_words_of_this_version() {
        let both = [JobStatus::Failed, JobStatus::NeedsAttention];
        assert_eq!(statuses("failed, needs_attention").unwrap(), both);
        for wrong in ["", "failed,", "done"] {
            assert_eq!(statuses(wrong).unwrap_err().kind(), Kind::BadRequest, "{wrong}");
        }
    }
}
