//! A job as the API describes it.

use serde::Deserialize;
use serde_json::Value;

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Durable; no step has ended, or run for long, yet.
    Accepted,
    /// Steps run.
    Running,
    /// The job waits: for its next attempt, a time, or a signal.
    Waiting,
    /// A step failed for good; the steps before it are being undone.
    Compensating,
    /// The job is parked until an operator sends it on.
    NeedsAttention,
    /// Ended: every step is done.
    Succeeded,
    /// Ended: a step failed for good, and the others are undone.
    Failed,
    /// Ended at a caller's request.
    Cancelled,
    /// A state that this version of the client does not know.
    #[serde(other)]
    Unknown,
}

impl JobState {
    /// True if the job has ended or is parked: nothing more happens by itself.
    pub const fn is_at_rest(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::NeedsAttention => true,
            Self::Accepted | Self::Running | Self::Waiting | Self::Compensating | Self::Unknown => false,
        }
    }

    /// The name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Compensating => "compensating",
            Self::NeedsAttention => "needs_attention",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }
}

/// `GET /v1/jobs/{id}`. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct Status {
    pub id: String,
    pub flow: String,
    pub version: String,
    pub status: JobState,
    pub created_at: String,
    pub updated_at: String,
    #[serde(default)]
    pub progress: Progress,
    #[serde(default)]
    pub steps: Vec<Step>,
    pub result: Option<Value>,
    pub error: Option<Failure>,
    pub trace_id: Option<String>,
    pub correlation_id: Option<String>,
    /// The finished job that this one repeats.
    pub retry_of: Option<String>,
    /// Since when it is known to make no progress, although nothing that it waits for is known.
    pub stuck_since: Option<String>,
    pub cancel: Option<CancelWish>,
    /// True if somebody wanted the job cancelled, and it has succeeded all the same.
    #[serde(default)]
    pub cancel_too_late: bool,
}

/// A status, and the name of this state of the job.
#[derive(Debug, Clone, PartialEq)]
pub struct TaggedStatus {
    /// The status.
    pub status: Status,
    /// Another one than before whenever something has happened. None if something between us has taken it away.
    pub tag: Option<String>,
}

/// Somebody's wish that the job be cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct CancelWish {
    pub requested_at: String,
    pub by: String,
    pub reason: Option<String>,
}

/// One step of a job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct Step {
    pub id: String,
    /// `pending`, `running`, `retrying`, `waiting`, `succeeded`, `skipped`, `failed` or `compensated`.
    pub status: String,
    pub attempts: u32,
    pub waiting_for: Option<WaitingFor>,
    /// What it tells of itself while it is under way.
    pub progress: Option<StepProgress>,
}

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct Progress {
    pub done: u32,
    pub total: u32,
    pub percent: u8,
    /// What the step under way tells of itself.
    pub message: Option<String>,
}

/// What a step tells of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct StepProgress {
    pub percent: Option<u8>,
    pub message: Option<String>,
}

/// The end of a step's rest: its time, or its signal, breaker or limit, whichever comes first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct WaitingFor {
    pub signal: Option<String>,
    /// The downstream whose breaker it waits for.
    pub breaker: Option<String>,
    /// The downstream within whose limits it waits for room.
    pub limit: Option<String>,
    /// The host that it asks, now and again, whether the work that it has accepted is done.
    pub poll: Option<String>,
    pub until: Option<String>,
}

/// The failure of a job, or the reason for which it is parked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct Failure {
    pub step: String,
    pub code: String,
    pub message: String,
}

/// A caller's word on how a step has ended whose outcome nobody knows.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It was done, with this output.
    Succeeded(Value),
    /// It was not done.
    Failed,
    /// It could not be undone, and somebody has undone it by hand, in this way.
    Undone(String),
}

impl Verdict {
    pub(crate) fn body(&self) -> Value {
        match self {
            Self::Succeeded(output) => serde_json::json!({ "outcome": "succeeded", "output": output }),
            Self::Failed => serde_json::json!({ "outcome": "failed" }),
            Self::Undone(reason) => serde_json::json!({ "outcome": "undone", "reason": reason }),
        }
    }
}

/// `GET /v1/jobs/{id}/events`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Events {
    /// The events, in the order in which they happened.
    pub events: Vec<Event>,
    /// The cursor after the last one; none where no event is known yet.
    pub next: Option<String>,
}

/// One event of a job.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Event {
    /// `job.accepted`, `step.succeeded`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// RFC 3339, in UTC, with milliseconds.
    pub at: String,
    /// The step that it is about.
    #[serde(default)]
    pub step: String,
    /// `forward` or `undo`.
    #[serde(default)]
    pub phase: String,
    /// Attempts so far.
    #[serde(default)]
    pub attempts: u32,
    /// The signal that the step waits for.
    pub signal: Option<String>,
    /// Why the job rests: `breaker`, `limit`, ...
    pub reason: Option<String>,
    /// Whoever decided.
    pub actor: Option<String>,
    /// The pause before the next attempt, or the longest rest, in milliseconds.
    pub next_attempt_after_ms: Option<i64>,
    /// Further data, by the kind of event.
    #[serde(default)]
    pub data: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct FlowList {
    pub(crate) flows: Vec<FlowName>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct FlowName {
    pub(crate) flow: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_a_later_version_is_unknown_and_not_an_end() {
        let state = |text: &str| serde_json::from_str::<JobState>(&format!("\"{text}\"")).unwrap();
        assert_eq!(state("hibernating"), JobState::Unknown);
        assert!(!JobState::Unknown.is_at_rest());
        for known in ["accepted", "running", "waiting", "compensating", "needs_attention", "succeeded", "failed"] {
            assert_eq!(state(known).as_str(), known);
        }
    }
}
