//! A job as its events tell it: the pure fold behind every status answer.

use serde_json::Value;

use crate::event::{JobEvent, JobStatus};
use crate::id::JobId;
use crate::slip::Failure;

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepStatus {
    /// Not come to yet, or under way.
    Pending,
    /// An attempt failed, another one is to come.
    Retrying,
    /// Done.
    Succeeded,
    /// Its `when` was false.
    Skipped,
    /// Failed for good.
    Failed,
    /// Undone.
    Compensated,
}

/// One step of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct StepView {
    /// The step's id.
    pub id: String,
    /// Where it stands.
    pub status: StepStatus,
    /// Attempts that were made in its last visit, forward.
    pub attempts: u32,
    /// When the job set out to it, as far as the events tell, milliseconds since the Unix epoch.
    pub started_at_ms: Option<i64>,
    /// When it ended, milliseconds since the Unix epoch.
    pub ended_at_ms: Option<i64>,
    /// The last failure, while it stands.
    pub error: Option<Value>,
    /// When the next attempt comes, milliseconds since the Unix epoch.
    pub next_attempt_at_ms: Option<i64>,
}

/// What was undone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compensation {
    /// The steps that were undone, in that order.
    pub undone: Vec<String>,
    /// The step whose compensation is being tried again or needs an operator.
    pub stuck: Option<String>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Steps that were done or skipped.
    pub done: u32,
    /// Steps of the flow.
    pub total: u32,
    /// `done` of `total`, 0 to 100.
    pub percent: u8,
}

/// A job as its events tell it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// The job.
    pub job: JobId,
    /// Its tenant.
    pub tenant: String,
    /// Its flow.
    pub flow: String,
    /// The flow's version.
    pub version: String,
    /// Its ordering key.
    pub key: String,
    /// Its correlation id.
    pub correlation_id: String,
    /// The job that it retries.
    pub retry_of: Option<JobId>,
    /// Where it stands.
    pub status: JobStatus,
    /// The cursor of the last event that was applied; the ETag.
    pub cursor: i64,
    /// When it was accepted, milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// When the last event happened, milliseconds since the Unix epoch.
    pub updated_at_ms: i64,
    /// How many steps the flow has.
    pub steps_total: u32,
    /// The steps that events have spoken of, in the order in which they came up.
    pub steps: Vec<StepView>,
    /// What was undone, once anything was to be.
    pub compensation: Option<Compensation>,
    /// The result of a job that succeeded.
    pub result: Option<Value>,
    /// Why it is not going to succeed, or why it is parked.
    pub error: Option<Failure>,
}

impl JobView {
    /// The view after a first event (the acceptance, or whatever came first to a reader that joined late).
    pub fn from_event(cursor: i64, event: &JobEvent) -> Self {
        let _ = (cursor, event);
        todo!()
    }

    /// Takes in one event. False, and no change, when the cursor is not beyond the last one: late and repeated events
    /// never take the view back.
    pub fn apply(&mut self, cursor: i64, event: &JobEvent) -> bool {
        let _ = (cursor, event);
        todo!()
    }

    /// How far the job is.
    pub fn progress(&self) -> Progress {
        todo!()
    }
}
