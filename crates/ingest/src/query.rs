//! What the parameters of lists have in common.

use events::time::read_rfc3339;
use flow::event::JobStatus;
use serde::{Deserialize, Deserializer};
use serde_json::Number;
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

/// A whole number, as JSON Schema counts them: `160.0` is one.
pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<Number>::deserialize(deserializer)? else { return Ok(None) };
    let wrong = || serde::de::Error::custom(format!("{number} is no whole number that is small enough"));
    whole_of(&number).and_then(|whole| u32::try_from(whole).ok()).map(Some).ok_or_else(wrong)
}

/// The same of a number that is there; none for one with a fraction, or that is too large.
pub(crate) fn whole_of(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
        // Without a fraction it is written without a point.
        format!("{float:.0}").parse().ok()
    })
}

/// The most entries of a page, or the problem 400.
pub(crate) fn limit(asked: Option<u32>, usual: u32, max: u32) -> Result<u32, Problem> {
    match asked.unwrap_or(usual) {
        limit if (1..=max).contains(&limit) => Ok(limit),
        _ => Err(Problem::new(Kind::BadRequest, format!("`limit` is a number from 1 to {max}."))),
    }
}

/// Cuts a page out of what was looked up, one more than it holds at most. Returns its last entry if more follow.
pub(crate) fn cut<T>(found: &mut Vec<T>, limit: u32) -> Option<&T> {
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    found.last().filter(|_| more)
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
    fn a_whole_number_may_have_a_fraction_of_nothing() {
        let read = |text: &str| whole(&mut serde_json::Deserializer::from_str(text)).map_err(|error| error.to_string());
        for (text, number) in [("160", Some(160)), ("160.0", Some(160)), ("1.6e2", Some(160)), ("null", None)] {
            assert_eq!(read(text), Ok(number), "{text}");
        }
        for text in ["160.5", "-1", "4294967296", "\"160\"", "1e30"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn statuses_are_words_of_this_version() {
        let both = [JobStatus::Failed, JobStatus::NeedsAttention];
        assert_eq!(statuses("failed, needs_attention").unwrap(), both);
        for wrong in ["", "failed,", "done"] {
            assert_eq!(statuses(wrong).unwrap_err().kind(), Kind::BadRequest, "{wrong}");
        }
    }
}
