//! Fields that several records have.

use std::borrow::Cow;

use flow::id::JobId;
use flow::slip::Phase;

use crate::error::{DecodeError, EncodeError};

pub(crate) fn forward<'a>() -> Cow<'a, str> {
    Cow::Borrowed(Phase::Forward.as_str())
}

/// The reverse of [`Phase::as_str`].
pub(crate) fn phase(text: &str) -> Result<Phase, DecodeError> {
    Phase::parse(text).ok_or_else(|| DecodeError::field("phase", text))
}

/// A job id under the name of its field.
pub(crate) fn job(field: &'static str, text: &str) -> Result<JobId, DecodeError> {
    text.parse().map_err(|_| DecodeError::field(field, text))
}

/// Avro's numbers are signed.
pub(crate) fn long(field: &'static str, value: u64) -> Result<i64, EncodeError> {
    i64::try_from(value).map_err(|_| EncodeError::OutOfRange { field, value })
}
