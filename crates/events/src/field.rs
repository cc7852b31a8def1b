//! Fields that several records have.

use std::borrow::Cow;

use flow::decide::{UNDONE_BY_HAND, VERDICTS};
use flow::id::JobId;
use flow::slip::Phase;
use flow::word::Word;

use crate::error::{DecodeError, EncodeError};

pub(crate) fn forward<'a>() -> Cow<'a, str> {
    Cow::Borrowed(Phase::Forward.as_str())
}

/// The reverse of [`Phase::as_str`].
pub(crate) fn phase(text: &str) -> Result<Phase, DecodeError> {
    Phase::parse(text).ok_or_else(|| unknown_word("phase", text))
}

/// A word that this version does not know is one of a later version; anything else is noise.
pub(crate) fn unknown_word(field: &'static str, text: &str) -> DecodeError {
    match Word::new(text) {
        Some(word) => DecodeError::Newer(format!("{field} `{}`", word.as_str())),
        None => DecodeError::field(field, text),
    }
}

/// The features that this version has, by their words in `requires`. A version that writes what others must not
/// overlook adds a word here.
pub const FEATURES: [&str; 4] = [SIGNALS, CANCELS, VERDICTS, UNDONE_BY_HAND];

/// Signals that flows wait for, and the holds that wait for them.
pub(crate) const SIGNALS: &str = "signals";
/// Signals that tell the keeper of holds of a cancel.
pub(crate) const CANCELS: &str = "cancels";

/// Refuses a record that needs a feature which this version does not have.
pub(crate) fn check_features(requires: &[Cow<'_, str>]) -> Result<(), DecodeError> {
    match requires.iter().find(|word| !FEATURES.contains(&word.as_ref())) {
        Some(word) => Err(DecodeError::Newer(format!("it requires `{word}`"))),
        None => Ok(()),
    }
}

/// A job id under the name of its field.
pub(crate) fn job(field: &'static str, text: &str) -> Result<JobId, DecodeError> {
    text.parse().map_err(|_| DecodeError::field(field, text))
}

/// Avro's numbers are signed.
pub(crate) fn long(field: &'static str, value: u64) -> Result<i64, EncodeError> {
    i64::try_from(value).map_err(|_| EncodeError::OutOfRange { field, value })
}
