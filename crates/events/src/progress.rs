//! A step's progress: lossy, not transactional, never an input to decisions.

use std::borrow::Cow;

use flow::id::JobId;
use flow::slip::Phase;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{DecodeError, EncodeError};
use crate::field::{forward, job, phase};
use crate::json::Json;

/// The kind that tells of the begin of an attempt.
pub const STARTED: &str = "started";
/// The kind that tells how much is done.
pub const PERCENT: &str = "percent";
/// Bytes of a message.
pub const MESSAGE_BYTES_MAX: usize = 200;

/// A message as it is kept: on one line, and at most [`MESSAGE_BYTES_MAX`] long. None where nothing is left of it.
pub fn short_message(text: &str) -> Option<String> {
    let plain = |character: char| if character.is_control() { ' ' } else { character };
    let head = &text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)];
    let message: String = head.chars().map(plain).collect();
    let message = message.trim();
    (!message.is_empty()).then(|| message.to_owned())
}

/// One report of a step's progress.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The job that the step belongs to.
    pub job: JobId,
    /// The job's tenant.
    pub tenant: String,
    /// The flow's name.
    pub flow: String,
    /// `started`, `percent`, `heartbeat`, `breaker`; readers pass over what they do not know.
    pub kind: String,
    /// The step.
    pub step: Option<String>,
    /// The direction in which the step is taken.
    pub phase: Phase,
    /// The token's branch.
    pub branch: String,
    /// The token's hop.
    pub hop: u32,
    /// The visit.
    pub visit: u32,
    /// The attempt under way, from 1.
    pub attempt: u32,
    /// The part of the step that is done, 0 to 100.
    pub percent: Option<u8>,
    /// The state, for a person.
    pub message: Option<String>,
    /// More about it.
    pub data: Option<Value>,
    /// The time of the report, or of the attempt's begin where it tells of that, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Progress")]
pub(crate) struct ProgressWire<'a> {
    job: Cow<'a, str>,
    tenant: Cow<'a, str>,
    flow: Cow<'a, str>,
    kind: Cow<'a, str>,
    #[serde(default)]
    step: Option<Cow<'a, str>>,
    #[serde(default = "forward")]
    phase: Cow<'a, str>,
    #[serde(default)]
    branch: Cow<'a, str>,
    #[serde(default)]
    hop: u32,
    #[serde(default)]
    visit: u32,
    #[serde(default)]
    attempt: u32,
    #[serde(default)]
    percent: Option<u8>,
    #[serde(default)]
    message: Option<Cow<'a, str>>,
    #[serde(default)]
    data: Option<Json<'a>>,
    at_ms: i64,
}

impl<'a> TryFrom<&'a Progress> for ProgressWire<'a> {
    type Error = EncodeError;

    fn try_from(progress: &'a Progress) -> Result<Self, EncodeError> {
        Ok(Self {
            job: progress.job.to_string().into(),
            tenant: progress.tenant.as_str().into(),
            flow: progress.flow.as_str().into(),
            kind: progress.kind.as_str().into(),
            step: progress.step.as_deref().map(Cow::Borrowed),
            phase: progress.phase.as_str().into(),
            branch: progress.branch.as_str().into(),
            hop: progress.hop,
            visit: progress.visit,
            attempt: progress.attempt,
            percent: progress.percent,
            message: progress.message.as_deref().map(Cow::Borrowed),
            data: Json::optional("data", progress.data.as_ref())?,
            at_ms: progress.at_ms,
        })
    }
}

impl TryFrom<ProgressWire<'_>> for Progress {
    type Error = DecodeError;

    fn try_from(wire: ProgressWire<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            job: job("job", &wire.job)?,
            tenant: wire.tenant.into_owned(),
            flow: wire.flow.into_owned(),
            kind: wire.kind.into_owned(),
            step: wire.step.map(Cow::into_owned),
            phase: phase(&wire.phase)?,
            branch: wire.branch.into_owned(),
            hop: wire.hop,
            visit: wire.visit,
            attempt: wire.attempt,
            percent: wire.percent,
            message: wire.message.map(Cow::into_owned),
            data: wire.data.map(Json::into_value),
            at_ms: wire.at_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_short_and_on_one_line() {
        assert_eq!(short_message(" half\nway\u{1b}[1m ").as_deref(), Some("half way [1m"));
        assert_eq!(short_message("\n\t"), None);
        let long = short_message(&"é".repeat(500)).unwrap();
        assert_eq!(long, "é".repeat(MESSAGE_BYTES_MAX / 2));
        assert_eq!(short_message(&format!("x{}", "é".repeat(500))).unwrap().len(), MESSAGE_BYTES_MAX - 1);
    }
}
