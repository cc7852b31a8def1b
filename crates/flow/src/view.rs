//! A job as its events tell it: the pure fold behind every status answer.

use serde_json::Value;

use crate::answer::Answer;
use crate::definition::Definition;
use crate::deref_to_facts;
use crate::event::{EventKind, JobEvent, JobStatus};
use crate::facts::JobFacts;
use crate::id::TokenId;
use crate::slip::Failure;

mod report;
mod steps;

pub use report::{Begun, Report, Reported};

/// The status of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepStatus {
    /// Not come to yet, or under way for a short time.
    Pending,
    /// An attempt is under way, and has been for long.
    Running,
    /// An attempt failed, another one is to come.
    Retrying,
    /// It sleeps, or waits for a signal.
    Waiting,
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
    /// The present status.
    pub status: StepStatus,
    /// Attempts that were made in its last visit, forward.
    pub attempts: u32,
    /// The time at which the job came to it, as far as the events tell, in milliseconds since the Unix epoch.
    pub started_at_ms: Option<i64>,
    /// The time of its end, in milliseconds since the Unix epoch.
    pub ended_at_ms: Option<i64>,
    /// The last failure, while it stands.
    pub error: Option<Value>,
    /// The last failure of its undo, until it is undone.
    pub undo_error: Option<Value>,
    /// The time of the next attempt, in milliseconds since the Unix epoch.
    pub next_attempt_at_ms: Option<i64>,
    /// The attempt that is under way, where it has been for long.
    pub running: Option<Running>,
    /// What it rests for, while it does.
    pub waiting_for: Option<WaitingFor>,
    /// Whoever decided about it.
    pub decided_by: Option<String>,
    /// What it tells of itself while it is under way; see [`JobView::add_report`].
    pub reported: Option<Reported>,
}

/// The end of a rest: its time, or its signal, breaker or limit, whichever comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingFor {
    /// The signal's name.
    pub signal: Option<String>,
    /// The downstream whose breaker it waits for.
    pub breaker: Option<String>,
    /// The downstream within whose limits it waits for room.
    pub limit: Option<String>,
    /// The host that it asks, now and again, whether the work that it has accepted is done.
    pub poll: Option<String>,
    /// The time in milliseconds since the Unix epoch, by the clock of the process that told of the rest.
    pub until_ms: Option<i64>,
}

/// An attempt that takes long, or the undo of a step that does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The process that makes it.
    pub worker: String,
    /// The time of its begin, in milliseconds since the Unix epoch, by that process's clock.
    pub since_ms: i64,
}

/// The steps that were undone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compensation {
    /// The steps that were undone, in that order.
    pub undone: Vec<String>,
    /// The step whose compensation is being tried again or needs an operator.
    pub stuck: Option<String>,
}

/// A job's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Steps that were done or skipped.
    pub done: u32,
    /// Steps of the flow.
    pub total: u32,
    /// `done` of `total`, with the part of the step under way that is done, 0 to 100.
    pub percent: u8,
}

/// A job as its events tell it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// The job.
    pub facts: JobFacts,
    /// The present status.
    pub status: JobStatus,
    /// The cursor of the last event that was applied; the ETag.
    pub cursor: i64,
    /// The time of the last event, in milliseconds since the Unix epoch.
    pub updated_at_ms: i64,
    /// The number of steps of the flow.
    pub steps_total: u32,
    /// The steps that events have spoken of, in the order in which they came up.
    pub steps: Vec<StepView>,
    /// Present once anything was to be undone.
    pub compensation: Option<Compensation>,
    /// The result of a job that succeeded.
    pub result: Option<Value>,
    /// The answer to its caller, where it is not just the result.
    pub answer: Option<Answer>,
    /// The failure because of which it is not going to succeed, or is parked.
    pub error: Option<Failure>,
    /// Its tokens that wait for an operator; none unless it is parked.
    pub parked: Vec<TokenId>,
    /// Its tokens that wait for a time: for another attempt, or to look again for what is missing. One that looks may
    /// have moved on since it was told of.
    pub waiting: Vec<TokenId>,
    /// Since when it is known to be stuck, in milliseconds since the Unix epoch; none: it is not.
    pub stuck_since_ms: Option<i64>,
}

deref_to_facts!(JobView);

impl StepStatus {
    /// The word used over HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Compensated => "compensated",
        }
    }
}

impl JobView {
    /// The view after a first event (the acceptance, or whatever came first to a reader that joined late).
    ///
    /// The acceptance itself has no cursor before Kafka has it: use -1.
    pub fn from_event(cursor: i64, event: &JobEvent) -> Self {
        let mut view = Self {
            facts: event.facts.clone(),
            status: event.status,
            cursor,
            updated_at_ms: event.accepted_at_ms,
            steps_total: event.steps_total,
            steps: Vec::new(),
            compensation: None,
            result: None,
            answer: None,
            error: None,
            parked: Vec::new(),
            waiting: Vec::new(),
            stuck_since_ms: None,
        };
        view.take(event);
        view
    }

    /// Takes in one event. False, and no change, when the cursor is not beyond the last one: late and repeated events
    /// never take the view back. Nothing follows a final state.
    pub fn apply(&mut self, cursor: i64, event: &JobEvent) -> bool {
        if cursor <= self.cursor {
            return false;
        }
        let before = std::mem::replace(&mut self.cursor, cursor);
        if let Some(stuck_at) = event.stuck_at() {
            let is_stuck = stuck_at == before && !self.status.is_final();
            self.stuck_since_ms = is_stuck.then_some(event.at_ms);
            return true;
        }
        self.stuck_since_ms = None;
        // The acceptance is known already when it is first shown from Postgres and then seen on Kafka.
        let known = event.kind == EventKind::JobAccepted && self.status != JobStatus::Accepted;
        if !known && !self.status.is_final() {
            self.take(event);
        }
        true
    }

    /// The job's progress. One that succeeded may have jumped over steps.
    pub fn progress(&self) -> Progress {
        let over = |step: &&StepView| matches!(step.status, StepStatus::Succeeded | StepStatus::Skipped);
        if self.status == JobStatus::Succeeded {
            return Progress { done: self.steps_total, total: self.steps_total, percent: 100 };
        }
        let done = u32::try_from(self.steps.iter().filter(over).count()).unwrap_or(u32::MAX);
        let reported: u64 = self.steps.iter().filter(|step| !over(step)).map(StepView::reported_percent).sum();
        let percent = (u64::from(done) * 100 + reported) / u64::from(self.steps_total.max(1));
        Progress { done, total: self.steps_total, percent: u8::try_from(percent.min(100)).unwrap_or(100) }
    }

    /// The steps in the flow's order. Those without an event are pending, or skipped by a job that has succeeded.
    pub fn steps_of(&self, definition: &Definition) -> Vec<StepView> {
        let known = |id: &str| self.steps.iter().find(|step| step.id == id).cloned();
        let status = if self.status == JobStatus::Succeeded { StepStatus::Skipped } else { StepStatus::Pending };
        let unknown = |id: &str| StepView { status, ..StepView::pending(id) };
        definition.steps().iter().map(|step| known(&step.id).unwrap_or_else(|| unknown(&step.id))).collect()
    }

    /// The whole state machine: what each event changes.
    fn take(&mut self, event: &JobEvent) {
        let since_ms = self.updated_at_ms;
        // A token that causes an event does not rest any more.
        self.parked.retain(|parked| parked.branch != event.branch);
        self.waiting.retain(|waiting| waiting.branch != event.branch);
        // A long call that an earlier event reported is over too.
        if let Some(step) = self.steps.iter_mut().find(|step| Some(&step.id) == event.step.as_ref()) {
            step.running = None;
            step.waiting_for = None;
        }
        match event.kind {
            EventKind::JobAccepted | EventKind::JobResumed => self.error = None,
            EventKind::StepRunning => self.run_step(event, since_ms),
            EventKind::StepSucceeded => self.end_step(event, StepStatus::Succeeded, since_ms),
            EventKind::StepSkipped => self.end_step(event, StepStatus::Skipped, since_ms),
            EventKind::StepFailed => self.end_step(event, StepStatus::Failed, since_ms),
            EventKind::StepCompensated => self.undo_step(event),
            EventKind::StepRetrying => self.retry_step(event, since_ms),
            EventKind::StepWaiting => self.rest_step(event, since_ms),
            EventKind::JobCompensating => {
                self.give_up(event);
                self.error = failure(event);
                self.compensation.get_or_insert_default();
            }
            EventKind::JobParked => self.park(event, since_ms),
            EventKind::JobSucceeded => {
                self.result.clone_from(&event.data);
                self.answer.clone_from(&event.answer);
            }
            EventKind::JobFailed | EventKind::JobCancelled => {
                self.give_up(event);
                self.error = failure(event);
                if let Some(compensation) = &mut self.compensation {
                    compensation.stuck = None;
                }
            }
            EventKind::JobStuck | EventKind::Other(_) => {}
        }
        self.status = event.status;
        self.updated_at_ms = event.at_ms;
    }
}

/// The token that came to rest with this event, which names the hop that ended so: the rest is one hop further.
fn at_rest(event: &JobEvent) -> TokenId {
    let token = event.token();
    TokenId { hop: token.hop.saturating_add(1), ..token }
}

impl StepView {
    fn pending(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            status: StepStatus::Pending,
            attempts: 0,
            started_at_ms: None,
            ended_at_ms: None,
            error: None,
            undo_error: None,
            next_attempt_at_ms: None,
            running: None,
            waiting_for: None,
            decided_by: None,
            reported: None,
        }
    }
}

impl Running {
    /// The data of `step.running`: `{worker, since_ms}`.
    pub fn to_json(&self) -> Value {
        serde_json::json!({ "worker": self.worker, "since_ms": self.since_ms })
    }

    fn from_json(json: &Value) -> Option<Self> {
        Some(Self { worker: json.get("worker")?.as_str()?.to_owned(), since_ms: json.get("since_ms")?.as_i64()? })
    }
}

fn failure(event: &JobEvent) -> Option<Failure> {
    event.data.as_ref().and_then(Failure::from_json)
}

#[cfg(test)]
mod tests;
