//! The answers of a sandbox: each call of such a flow is given one in place of the other side's.

use super::duration::parse_ms;
use super::limit::TIMEOUT_MS_MAX;
use crate::expression::Template;

/// The form of a latency, for messages.
pub(super) const LATENCY_EXPECTED: &str = "a duration or a range of at most 15m: 300ms, 200ms..2s";

/// The answer of a simulated call.
pub struct Simulate {
    /// The time that it takes: a duration, or a range from which each attempt draws.
    pub(crate) latency: Template,
    /// The output, where it succeeds.
    pub(crate) output: Template,
    /// Its failures; the first one that applies is the answer.
    pub(crate) fail: Vec<Fail>,
}

/// A failure of a simulated call.
pub(crate) struct Fail {
    /// The condition; none: always.
    pub(crate) when: Option<Template>,
    /// Of a hundred attempts to which it applies so many fail.
    pub(crate) percent: u64,
    pub(crate) kind: FailKind,
    /// The reason, as the other side would tell it.
    pub(crate) detail: Option<Template>,
}

/// The kinds of such failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailKind {
    /// An answer with this status.
    Status(u16),
    /// None within the step's time.
    NoAnswer,
    /// The connection breaks after the request was sent.
    ConnectionLost,
    /// No connection is made.
    NoConnection,
}

/// The bounds of a latency in milliseconds.
pub(crate) fn parse_latency(text: &str) -> Option<(u64, u64)> {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    let (min_ms, max_ms) = (parse_ms(min.trim())?, parse_ms(max.trim())?);
    (min_ms <= max_ms && max_ms <= TIMEOUT_MS_MAX).then_some((min_ms, max_ms))
}
