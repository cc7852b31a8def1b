//! Facts about a job, in the past tense.

use crate::answer::Answer;
use crate::deref_to_facts;
use crate::facts::JobFacts;
use serde_json::Value;

use crate::id::TokenId;
use crate::slip::{HoldReason, Phase, Slip};
use crate::word::Word;

/// The status of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobStatus {
    /// Accepted; no step has ended, or has run for long, yet.
    Accepted,
    /// Under way.
    Running,
    /// Held until a time or a signal.
    Waiting,
    /// Undoing what was done.
    Compensating,
    /// Parked: an operator has to decide.
    NeedsAttention,
    /// Ended well.
    Succeeded,
    /// Ended badly; what was done is undone.
    Failed,
    /// Ended by request; what was done is undone.
    Cancelled,
    /// A status of a later version.
    Other(Word),
}

impl JobStatus {
    /// Every status of this version.
    pub const ALL: [Self; 8] = [
        Self::Accepted,
        Self::Running,
        Self::Waiting,
        Self::Compensating,
        Self::NeedsAttention,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word used on Kafka, in Postgres and over HTTP.
    pub const fn as_str(&self) -> &str {
        match self {
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Compensating => "compensating",
            Self::NeedsAttention => "needs_attention",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Other(word) => word.as_str(),
        }
    }

    /// The status of this version with that word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// The reverse of [`JobStatus::as_str`], for what a later version may have written.
    pub fn read(text: &str) -> Option<Self> {
        Self::parse(text).or_else(|| Word::new(text).map(Self::Other))
    }

    /// True for the three states that are never left.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// `job.accepted`: the job is stored and will run.
    JobAccepted,
    /// `step.running`: an attempt has run for long, or one begins that must not be repeated; a worker goes on with it,
    /// apart from the queue.
    StepRunning,
    /// `step.succeeded`
    StepSucceeded,
    /// `step.skipped`: its `when` was false, or its wait was in vain and the flow goes on all the same.
    StepSkipped,
    /// `step.retrying`: an attempt failed and the next one comes after a hold; or an undo found nothing, and is made
    /// once more after a hold.
    StepRetrying,
    /// `step.waiting`: its step sleeps, or waits for a signal.
    StepWaiting,
    /// `step.failed`: for good; what follows is compensation, parking or the end.
    StepFailed,
    /// `step.compensated`: its undo succeeded, or there was nothing to undo at the other side.
    StepCompensated,
    /// `job.compensating`: the decision to undo what was done, taken before the first undo runs.
    JobCompensating,
    /// `job.parked`: an operator has to decide.
    JobParked,
    /// `job.resumed`: an operator sent a parked job on.
    JobResumed,
    /// `job.succeeded`
    JobSucceeded,
    /// `job.failed`
    JobFailed,
    /// `job.cancelled`
    JobCancelled,
    /// `job.stuck`: the job has made no progress for long, although nothing that it waits for is known. It changes
    /// nothing: the next event shows that the job goes on.
    JobStuck,
    /// A kind of a later version. It is kept and shown; nothing follows from it here but its status.
    Other(Word),
}

impl EventKind {
    /// Every kind of this version.
    pub const ALL: [Self; 15] = [
        Self::JobAccepted,
        Self::StepRunning,
        Self::StepSucceeded,
        Self::StepSkipped,
        Self::StepRetrying,
        Self::StepWaiting,
        Self::StepFailed,
        Self::StepCompensated,
        Self::JobCompensating,
        Self::JobParked,
        Self::JobResumed,
        Self::JobSucceeded,
        Self::JobFailed,
        Self::JobCancelled,
        Self::JobStuck,
    ];

    /// True for the three kinds that end a job in this version.
    pub const fn ends_job(self) -> bool {
        matches!(self, Self::JobSucceeded | Self::JobFailed | Self::JobCancelled)
    }

    /// The event's type as the outside sees it.
    pub const fn as_str(&self) -> &str {
        match self {
            Self::JobAccepted => "job.accepted",
            Self::StepRunning => "step.running",
            Self::StepSucceeded => "step.succeeded",
            Self::StepSkipped => "step.skipped",
            Self::StepRetrying => "step.retrying",
            Self::StepWaiting => "step.waiting",
            Self::StepFailed => "step.failed",
            Self::StepCompensated => "step.compensated",
            Self::JobCompensating => "job.compensating",
            Self::JobParked => "job.parked",
            Self::JobResumed => "job.resumed",
            Self::JobSucceeded => "job.succeeded",
            Self::JobFailed => "job.failed",
            Self::JobCancelled => "job.cancelled",
            Self::JobStuck => "job.stuck",
            Self::Other(word) => word.as_str(),
        }
    }

    /// The kind of this version with that word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The reverse of [`EventKind::as_str`], for what a later version may have written.
    pub fn read(text: &str) -> Option<Self> {
        Self::parse(text).or_else(|| Word::new(text).map(Self::Other))
    }
}

/// One transition of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobEvent {
    /// The facts of the job.
    pub facts: JobFacts,
    /// The kind of the event.
    pub kind: EventKind,
    /// The job's status after it.
    pub status: JobStatus,
    /// The hop of the token that caused it (0: the acceptance).
    pub hop: u32,
    /// The place among the events of the same hop, from 0. `(job, branch, hop, index)` names the event.
    pub index: u32,
    /// The branch of the token that caused it.
    pub branch: String,
    /// The step, for events of steps.
    pub step: Option<String>,
    /// The direction in which the step was taken.
    pub phase: Phase,
    /// The visit, for events of steps.
    pub visit: u32,
    /// The number of attempts in this visit, for events of steps.
    pub attempts: u32,
    /// The time in milliseconds since the Unix epoch, by the clock of the reporting process.
    pub at_ms: i64,
    /// The number of steps of the flow.
    pub steps_total: u32,
    /// The pause before the next attempt, or the longest rest, in milliseconds (`step.retrying`, `step.waiting`).
    pub next_attempt_after_ms: Option<u64>,
    /// `job.succeeded`: the result. `step.running`: `{worker, since_ms}`, who runs it, and since when in milliseconds
    /// since the Unix epoch. `step.failed`, `step.retrying`, `job.compensating`, `job.parked`, `job.failed`,
    /// `job.cancelled`: the failure as `{step, code, message, status?, attempts}`; those of a step and `job.parked`
    /// with the worker's `attempt_log`, if attempts were made. `step.waiting`: `{downstream}` for a breaker or limit,
    /// `{poll: {host, timeout_ms}}` as a poll begins. `job.stuck`: `{silent_since_ms, cursor}`, the time and the cursor
    /// of the last event before. `job.resumed`: `{outcome, reason?}`, where an operator says how its step has ended,
    /// and `step.compensated` where it was undone by hand so. `step.waiting`, where a callback is still waited for: the
    /// failure. Otherwise none.
    pub data: Option<Value>,
    /// The reason for which the token rests (`step.waiting`).
    pub reason: Option<HoldReason>,
    /// The signal that it waits for (`step.waiting`).
    pub signal: Option<String>,
    /// The person or system that decided, where one did.
    pub actor: Option<String>,
    /// The answer to the job's caller (`job.succeeded`), where it is not just the result.
    pub answer: Option<Answer>,
    /// For later versions.
    pub carried: CarriedEvent,
}

/// Fields of an event that nothing in this version uses. `schemas/README.md` says what they are for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CarriedEvent {
    /// The status of its branch, where that is not the job's.
    pub branch_status: Option<String>,
    /// The queue that the token is in.
    pub queue: Option<String>,
    /// The job's deadline, in milliseconds since the Unix epoch.
    pub deadline_ms: Option<i64>,
}

deref_to_facts!(JobEvent);

/// The index of [`JobEvent::stuck`] among the events of its hop. No decision has so many events.
const STUCK_INDEX: u32 = 2_000;

impl JobEvent {
    /// The event that tells that a job has stood still since this event, its last one, at this cursor.
    #[must_use]
    pub fn stuck(self, status: JobStatus, cursor: i64, now_ms: i64) -> Self {
        let data = serde_json::json!({ "silent_since_ms": self.at_ms, "cursor": cursor });
        Self {
            kind: EventKind::JobStuck,
            status,
            index: STUCK_INDEX,
            at_ms: now_ms,
            next_attempt_after_ms: None,
            data: Some(data),
            reason: None,
            signal: None,
            actor: None,
            answer: None,
            carried: CarriedEvent::default(),
            ..self
        }
    }

    /// The cursor at which the job stands still, if this event tells that it does. One that has gone on since is not
    /// stuck, whatever the event says.
    pub fn stuck_at(&self) -> Option<i64> {
        if self.kind != EventKind::JobStuck {
            return None;
        }
        Some(self.data.as_ref().and_then(|data| data["cursor"].as_i64()).unwrap_or(i64::MIN))
    }

    /// An event about the token as it stands, without a step or data.
    pub(crate) fn about(slip: &Slip, steps_total: u32, kind: EventKind, status: JobStatus, now_ms: i64) -> Self {
        Self {
            facts: slip.facts.clone(),
            kind,
            status,
            hop: slip.hop,
            index: 0,
            branch: slip.branch.clone(),
            step: None,
            phase: slip.phase,
            visit: slip.visit,
            attempts: 0,
            at_ms: now_ms,
            steps_total,
            next_attempt_after_ms: None,
            data: None,
            reason: None,
            signal: None,
            actor: None,
            answer: None,
            carried: CarriedEvent::default(),
        }
    }

    /// The identity of the token that caused the event.
    pub fn token(&self) -> TokenId {
        TokenId { job: self.job, branch: self.branch.clone(), hop: self.hop }
    }

    /// The event's identity (CloudEvents `id`), the same however often it is produced.
    pub fn message_id(&self) -> String {
        format!("{}:{}", self.token(), self.index)
    }
}
