//! Decides what comes next; nothing else does.
//!
//! A worker calls [`prepare`] with a slip, makes the call that it asks for, gives the answer to [`classify`], and the
//! outcome to [`advance`]; it commits what [`Decision`] says. All of it is pure.
//!
//! A cancel wish is given as [`Outcome::Cancelled`] in place of running the step, when the slip arrives.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::definition::{Definition, limit};
use crate::event::{EventKind, JobEvent, JobStatus};
use crate::id::JobId;
use crate::slip::{Hold, HoldReason, Phase, Slip};
use crate::view::Running;

mod answer;
mod backoff;
mod call;
mod token;

pub use answer::classify;
pub use call::prepare;

/// A job to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Its id, drawn by the caller.
    pub job: JobId,
    /// The tenant that submitted it.
    pub tenant: String,
    /// Its ordering key, from [`Definition::ordering_key`].
    pub key: String,
    /// Its input, already validated.
    pub input: Value,
    /// The caller's correlation id, or ours.
    pub correlation_id: String,
    /// 0 urgent, 1 normal, 2 bulk.
    pub priority: u8,
    /// The job that this one retries.
    pub retry_of: Option<JobId>,
}

/// Values of the worker's surroundings, for expressions.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// `env.*`: the worker's environment, as far as flows may see it.
    pub vars: BTreeMap<String, String>,
    /// `secrets.*`: never stored, never logged.
    pub secrets: BTreeMap<String, String>,
}

/// The call that a slip asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Prepared {
    /// Make this request, then [`classify`] the answer.
    Http(HttpCall),
    /// Call this function.
    Native(NativeCall),
    /// Nothing to call: hand this to [`advance`] (a missing value, a deadline that has passed).
    Outcome(Outcome),
}

/// A request, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpCall {
    /// The method, upper case.
    pub method: String,
    /// The absolute URL.
    pub url: String,
    /// The flow's own headers, names in lower case. `Idempotency-Key`, `traceparent` and the like are the worker's.
    pub headers: Vec<(String, String)>,
    /// The JSON body, if there is one.
    pub body: Option<Value>,
    /// The time limit of the whole attempt.
    pub timeout_ms: u64,
    /// The value of the `Idempotency-Key` header.
    pub idempotency_key: String,
}

/// A native step, ready to be called.
#[derive(Debug, Clone, PartialEq)]
pub struct NativeCall {
    /// The name under which it is registered.
    pub name: String,
    /// The step's `with`, rendered; without it the job's input.
    pub input: Value,
    /// The time limit of the attempt.
    pub timeout_ms: u64,
    /// The same for every attempt of the visit.
    pub idempotency_key: String,
    /// True when the function is to undo.
    pub undo: bool,
}

/// The answer to an HTTP request, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAnswer {
    /// An answer came.
    Response {
        /// Its status.
        status: u16,
        /// Its `Retry-After` header, as it stands.
        retry_after: Option<String>,
        /// Its body.
        body: Vec<u8>,
    },
    /// A 2xx came whose body is over the limit: the step was done, its output is lost.
    TooLarge {
        status: u16,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// No answer within the time.
    TimedOut,
    /// No connection was made: the other side has seen nothing.
    ConnectFailed(String),
    /// The connection broke after the request may have been sent.
    ConnectionLost(String),
    /// The request cannot be sent as it is (a URL or header that is not one).
    Unsendable(String),
    /// The worker broke the attempt off.
    Aborted,
}

/// Why a step's attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepError {
    /// A short stable word, one of [`code`].
    pub code: String,
    /// The error, for a person. No secrets.
    pub message: String,
    /// The HTTP status that came, if one did.
    pub status: Option<u16>,
}

/// The words of [`StepError::code`] and of `Failure::code`.
pub mod code {
    /// The other side said no.
    pub const STEP_FAILED: &str = "step-failed";
    /// No answer within the step's time.
    pub const TIMED_OUT: &str = "timed-out";
    /// The other side could not be reached, or the connection broke.
    pub const CONNECTION_FAILED: &str = "connection-failed";
    /// An expression of the flow could not be evaluated.
    pub const EXPRESSION_FAILED: &str = "expression-failed";
    /// The output, the slip or the result is over a size limit.
    pub const TOO_LARGE: &str = "too-large";
    /// The job's deadline has passed.
    pub const DEADLINE_EXCEEDED: &str = "deadline-exceeded";
    /// Somebody asked for it.
    pub const CANCELLED: &str = "cancelled";
    /// The attempt was broken off.
    pub const ABORTED: &str = "aborted";
}

/// The possible effect, at the other side, of an attempt that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// This attempt did nothing; earlier ones may have.
    Unsent,
    /// A definite no: nothing was done, by this attempt or by an earlier one with the same idempotency key.
    Refused,
    /// Nobody knows.
    Unknown,
    /// It was done, but what it returned is lost.
    Done,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was done, with this output.
    Succeeded {
        /// The step's output.
        output: Value,
    },
    /// It was not, or not certainly.
    Failed {
        /// Why.
        error: StepError,
        /// True when another attempt may help.
        retryable: bool,
        /// Its possible effect.
        effect: Effect,
        /// The other side asked for at least this delay.
        retry_after_ms: Option<u64>,
    },
    /// The step was not run because somebody wants the job cancelled.
    Cancelled,
}

/// The consequences of an outcome. All of them are to be committed at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Where the token goes.
    pub next: Next,
    /// The events to publish, in order. Empty with [`Next::RetryNow`].
    pub events: Vec<JobEvent>,
}

/// Where the token goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// To a queue.
    Step {
        slip: Slip,
        /// The queue it goes to.
        queue: String,
    },
    /// Nowhere: the same worker tries again after a short delay. Nothing is committed.
    RetryNow {
        /// The slip to prepare again (one attempt on, the same hop).
        slip: Slip,
        /// After how long.
        delay_ms: u64,
    },
    /// To rest.
    Hold(Hold),
    /// The job has ended; there is no token any more.
    End,
}

impl Outcome {
    /// The slip, an event or the result does not fit into a record: what the worker gives to [`advance`] in place
    /// of the success whose decision it could not produce.
    pub fn too_large(message: impl Into<String>) -> Self {
        let error = StepError { code: code::TOO_LARGE.to_owned(), message: message.into(), status: None };
        Self::Failed { error, retryable: false, effect: Effect::Done, retry_after_ms: None }
    }
}

/// The index of [`resumed`] among the events of its hop. A decision never has so many events (steps are limited to
/// 100).
pub const RESUMED_INDEX: u32 = 1_000;
/// A slip rests for this time before it looks again for a worker that has its native step.
pub const MISSING_NATIVE_DELAY_MS: u64 = 10_000;
/// How long a slip rests, at least, before it looks again whether there is room for its step; at most twice as long.
const ROOM_DELAY_MS: u64 = 5_000;

/// The first decision about a job, at its acceptance: `job.accepted` at hop 0, and the first slip at hop 1.
pub fn start(definition: &Definition, job: NewJob, now_ms: i64) -> Decision {
    token::Token::accepted(definition, job, now_ms).forward(0)
}

/// Decides what follows from an outcome of the slip's step.
///
/// - Success goes on to the next step whose `when` holds, or ends the job. The last step's success wins over a
///   deadline.
/// - A failure that may pass is tried again while the policy, the deadline and `idempotent` allow it.
/// - A failure for good parks the job (`on_failure: park`, or an unknown outcome of a step that must not be
///   repeated), or starts the way back. A parked slip keeps its visit, and with it its idempotency key, when
///   something may have been done under it; after a definite no it begins a new visit. Its deadline is lifted: an
///   operator decides when it ends.
/// - On the way back only a success (also 404 and 410) leads on; an undo that is given up parks the job.
/// - [`Outcome::Cancelled`] sends a job back. A job on its way back already is not changed by it.
pub fn advance(definition: &Definition, slip: &Slip, outcome: Outcome, now_ms: i64) -> Decision {
    let token = token::Token::arrived(definition, slip, now_ms);
    match (slip.phase, outcome) {
        (Phase::Forward, Outcome::Succeeded { output }) => token.succeeded(output),
        (Phase::Forward, Outcome::Failed { error, retryable, effect, retry_after_ms }) => {
            token.failed(error, retryable, effect, retry_after_ms)
        }
        (Phase::Forward, Outcome::Cancelled) => token.cancelled(),
        (Phase::Undo, Outcome::Succeeded { .. } | Outcome::Failed { effect: Effect::Done, .. }) => token.undone(),
        (Phase::Undo, Outcome::Failed { error, retryable, retry_after_ms, .. }) => {
            token.undo_failed(error, retryable, retry_after_ms)
        }
        (Phase::Undo, Outcome::Cancelled) => token.unchanged(),
    }
}

/// A slip that may have been taken before, by a worker that stopped without a commit: what lay in a partition when
/// it was assigned. Its step may have been run already, so it is undone unless a definite answer comes.
pub fn redelivered(slip: Slip) -> Slip {
    let attempt_uncertain = slip.attempt_uncertain || slip.phase == Phase::Forward;
    Slip { attempt_uncertain, ..slip }
}

/// A native step that this worker does not have: the slip rests for a while, and then looks for a worker that has it.
pub fn missing_native(definition: &Definition, slip: &Slip) -> Decision {
    let queue = definition.queue_of(&slip.step).unwrap_or(limit::QUEUE_DEFAULT).to_owned();
    let slip = Slip { hop: slip.hop + 1, ..slip.clone() };
    let hold = Hold { slip, queue, reason: HoldReason::MissingStep, release_after_ms: Some(MISSING_NATIVE_DELAY_MS) };
    Decision { next: Next::Hold(hold), events: Vec::new() }
}

/// A step that has run for long leaves its queue: the token becomes a hold of the worker that runs it, which goes on
/// with the call and, when it is over, gives the outcome to [`advance`] with the hold's slip. If the worker is lost,
/// that slip is sent again: its step may have been begun.
pub fn detach(definition: &Definition, slip: &Slip, running: &Running, now_ms: i64) -> (Hold, JobEvent) {
    let steps_total = u32::try_from(definition.steps().len()).unwrap_or(u32::MAX);
    let status = match slip.phase {
        Phase::Forward => JobStatus::Running,
        Phase::Undo => JobStatus::Compensating,
    };
    let mut event = JobEvent::about(slip, steps_total, EventKind::StepRunning, status, now_ms);
    event.step = Some(slip.step.clone());
    event.attempts = slip.attempt.saturating_add(1);
    event.data = Some(running.to_json());
    let hold = at_rest(definition, redelivered(slip.clone()), HoldReason::Running);
    (hold, event)
}

/// A slip whose ordering key is taken in its queue, by a step that has run for long: it rests until its turn comes.
pub fn wait_turn(definition: &Definition, slip: &Slip) -> Hold {
    at_rest(definition, slip.clone(), HoldReason::Turn)
}

/// A step that is known to take long, in a queue where too many such steps are under way: it rests for some seconds.
pub fn wait_for_room(definition: &Definition, slip: &Slip) -> Decision {
    let mut hold = at_rest(definition, slip.clone(), HoldReason::Room);
    let delay_ms = backoff::spread_ms(ROOM_DELAY_MS, &format!("{}:{}", slip.job, slip.hop));
    hold.release_after_ms = Some(ROOM_DELAY_MS + delay_ms);
    Decision { next: Next::Hold(hold), events: Vec::new() }
}

/// The token one hop on, at rest without an end of its own.
fn at_rest(definition: &Definition, slip: Slip, reason: HoldReason) -> Hold {
    let queue = definition.queue_of(&slip.step).unwrap_or(limit::QUEUE_DEFAULT).to_owned();
    Hold { slip: Slip { hop: slip.hop.saturating_add(1), ..slip }, queue, reason, release_after_ms: None }
}

/// The event to append when an operator sends a parked job on. `slip` is what was held, and goes on unchanged;
/// `steps_total` is how many steps its flow has.
pub fn resumed(slip: &Slip, steps_total: u32, now_ms: i64) -> JobEvent {
    let status = match slip.phase {
        Phase::Forward => JobStatus::Running,
        Phase::Undo => JobStatus::Compensating,
    };
    let event = JobEvent::about(slip, steps_total, EventKind::JobResumed, status, now_ms);
    JobEvent { step: Some(slip.step.clone()), index: RESUMED_INDEX, ..event }
}

#[cfg(test)]
mod tests;
