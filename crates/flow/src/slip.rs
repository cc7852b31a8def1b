//! The slip: the record that carries a job to its next step. It is the job's token.

use serde_json::Value;

use crate::id::{JobId, TokenId};

/// Which way the job is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Towards success.
    Forward,
    /// Back: `step` is to be compensated.
    Undo,
}

impl Phase {
    /// The word used on Kafka and over HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Undo => "undo",
        }
    }

    /// The reverse of [`Phase::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "forward" => Some(Self::Forward),
            "undo" => Some(Self::Undo),
            _ => None,
        }
    }
}

/// A step that was done, or possibly done, on the way forward. Kept in the order in which it happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Completed {
    /// The step's id.
    pub step: String,
    /// The visit in which it was done.
    pub visit: u32,
    /// Its output; absent when its outcome is unknown.
    pub output: Option<Value>,
    /// True when the outcome is unknown (timeout, connection lost, 5xx): it is undone like a completed one.
    pub uncertain: bool,
    /// True once its compensation succeeded or was found unnecessary.
    pub undone: bool,
}

/// Why a job is not going to succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The step that failed; empty when the job itself did (deadline, cancel).
    pub step: String,
    /// A short stable word: `step-failed`, `deadline-exceeded`, `cancelled`, `too-large`, ...
    pub code: String,
    /// The failure, for a person.
    pub message: String,
    /// The HTTP status that the step answered, if it did.
    pub status: Option<u16>,
    /// The number of attempts that were made.
    pub attempts: u32,
}

impl Failure {
    /// The failure as events carry it: `{step, code, message, status?, attempts}`.
    pub fn to_json(&self) -> Value {
        let mut json = serde_json::json!({ "step": self.step, "code": self.code, "message": self.message });
        if let Some(status) = self.status {
            json["status"] = status.into();
        }
        json["attempts"] = self.attempts.into();
        json
    }

    /// The reverse of [`Failure::to_json`].
    pub fn from_json(json: &Value) -> Option<Self> {
        let text = |name: &str| json.get(name)?.as_str().map(str::to_owned);
        let number = |name: &str| json.get(name)?.as_u64();
        Some(Self {
            step: text("step")?,
            code: text("code")?,
            message: text("message")?,
            status: number("status").and_then(|status| u16::try_from(status).ok()),
            attempts: number("attempts").and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or_default(),
        })
    }
}

/// A job's token on its way to one step. Flat, as it is on Kafka.
#[derive(Debug, Clone, PartialEq)]
pub struct Slip {
    /// Whose token this is.
    pub job: JobId,
    /// The tenant that submitted the job.
    pub tenant: String,
    pub flow: String,
    /// The version of the flow that the job started with, and stays on.
    pub version: String,
    /// The ordering key within tenant and flow: the flow's `key`, else the job id.
    pub key: String,
    /// The step to run, or in [`Phase::Undo`] the step to compensate.
    pub step: String,
    /// Forward or undo.
    pub phase: Phase,
    /// The branch of a parallel step; empty on the main line.
    pub branch: String,
    /// Rises by one with every committed move of the token; `(job, branch, hop)` has one successor.
    pub hop: u32,
    /// The count of the job's visits to this step, from 1; part of the step's idempotency key.
    pub visit: u32,
    /// Attempts of this visit that were already made and committed (0 on arrival).
    pub attempt: u32,
    /// True when an earlier attempt of this visit may have had its effect and no definite answer came since.
    pub attempt_uncertain: bool,
    /// The job's input.
    pub input: Value,
    /// The steps done so far, in order.
    pub done: Vec<Completed>,
    /// Set once the job is not going to succeed.
    pub failure: Option<Failure>,
    /// When the job should have ended, milliseconds since the Unix epoch.
    pub deadline_ms: Option<i64>,
    /// When the job was accepted, milliseconds since the Unix epoch.
    pub accepted_at_ms: i64,
    /// The caller's correlation id, or ours.
    pub correlation_id: String,
    /// 0 urgent, 1 normal, 2 bulk.
    pub priority: u8,
    /// The job that this one retries.
    pub retry_of: Option<JobId>,
}

impl Slip {
    /// The identity of the token that this slip is.
    pub fn token(&self) -> TokenId {
        TokenId { job: self.job, branch: self.branch.clone(), hop: self.hop }
    }

    /// The idempotency key that every attempt of this visit sends: `<job>:<step>:<visit>`, with `:undo` for the
    /// compensation.
    pub fn idempotency_key(&self) -> String {
        let suffix = match self.phase {
            Phase::Forward => "",
            Phase::Undo => ":undo",
        };
        format!("{}:{}:{}{suffix}", self.job, self.step, self.visit)
    }

    /// The Kafka key of the record that carries this slip: `tenant/flow/ordering key`.
    pub fn record_key(&self) -> String {
        format!("{}/{}/{}", self.tenant, self.flow, self.key)
    }
}

/// Why a slip is at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldReason {
    /// It waits for the back-off before the next attempt.
    Backoff,
    /// It waits for an operator: the job is parked (`needs_attention`).
    Attention,
    /// It waits for a worker that has the native step.
    MissingStep,
    /// Its step is under way: a worker runs the call, whatever happens to the partition that the slip came from.
    Running,
    /// It waits for its turn: the step of another token with the same ordering key is under way in its queue.
    Turn,
    /// It waits for room: too many long steps of its queue are under way.
    Room,
}

impl HoldReason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Backoff, Self::Attention, Self::MissingStep, Self::Running, Self::Turn, Self::Room];

    /// The word used on Kafka, in Postgres and over HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backoff => "backoff",
            Self::Attention => "attention",
            Self::MissingStep => "missing-step",
            Self::Running => "running",
            Self::Turn => "turn",
            Self::Room => "room",
        }
    }

    /// The reverse of [`HoldReason::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// A slip at rest, with what it waits for. Holds carry durations; Postgres' clock sets their end.
#[derive(Debug, Clone, PartialEq)]
pub struct Hold {
    /// The slip to send on when the hold is released, as it should be sent.
    pub slip: Slip,
    /// The queue that it goes to.
    pub queue: String,
    /// The reason for its rest.
    pub reason: HoldReason,
    /// After how long it is released by itself; none: only by an operator.
    pub release_after_ms: Option<u64>,
}
