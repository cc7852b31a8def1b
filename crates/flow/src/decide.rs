//! What comes next: the only place that decides.
//!
//! A worker calls [`prepare`] with a slip, makes the call that it asks for, gives the answer to [`classify`], and the
//! outcome to [`advance`]; it commits what [`Decision`] says. All of it is pure.
//!
//! A cancel wish is given as [`Outcome::Cancelled`] in place of running the step, when the slip arrives.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::definition::Definition;
use crate::event::JobEvent;
use crate::id::JobId;
use crate::slip::{Hold, Slip};

/// A job to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Its id, drawn by the caller.
    pub job: JobId,
    /// Who submitted it.
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

/// What the worker's surroundings give to expressions.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// `env.*`: the worker's environment, as far as flows may see it.
    pub vars: BTreeMap<String, String>,
    /// `secrets.*`: never stored, never logged.
    pub secrets: BTreeMap<String, String>,
}

/// What to do with a slip.
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
    /// How long the attempt may take, all in all.
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
    /// How long the attempt may take.
    pub timeout_ms: u64,
    /// The same for every attempt of the visit.
    pub idempotency_key: String,
    /// True when the function is to undo.
    pub undo: bool,
}

/// What became of an HTTP request.
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
        /// The status.
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
    /// What happened, for a person. No secrets.
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

/// What an attempt that did not succeed may have done at the other side.
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

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was done, with this output.
    Succeeded {
        /// What the step returned.
        output: Value,
    },
    /// It was not, or not certainly.
    Failed {
        /// Why.
        error: StepError,
        /// True when another attempt may help.
        retryable: bool,
        /// What it may have done.
        effect: Effect,
        /// The other side asked for at least this delay.
        retry_after_ms: Option<u64>,
    },
    /// The step was not run because somebody wants the job cancelled.
    Cancelled,
}

/// What follows from an outcome. All of it is to be committed at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Where the token goes.
    pub next: Next,
    /// What to tell the world, in order. Empty with [`Next::RetryNow`].
    pub events: Vec<JobEvent>,
}

/// Where the token goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// To a queue.
    Step {
        /// The slip to send.
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
    /// The slip, an event or the result does not fit into a record: what the worker gives to [`advance`] in place of the
    /// success whose decision it could not produce.
    pub fn too_large(message: impl Into<String>) -> Self {
        let error = StepError { code: code::TOO_LARGE.to_owned(), message: message.into(), status: None };
        Self::Failed { error, retryable: false, effect: Effect::Done, retry_after_ms: None }
    }
}

/// The first decision about a job, at its acceptance.
pub fn start(definition: &Definition, job: NewJob, now_ms: i64) -> Decision {
    let _ = (definition, job, now_ms);
    todo!()
}

/// What a slip asks its worker to do.
pub fn prepare(definition: &Definition, slip: &Slip, env: &Env, now_ms: i64) -> Prepared {
    let _ = (definition, slip, env, now_ms);
    todo!()
}

/// What an answer means for the step that asked.
pub fn classify(definition: &Definition, slip: &Slip, answer: HttpAnswer, now_ms: i64) -> Outcome {
    let _ = (definition, slip, answer, now_ms);
    todo!()
}

/// What follows from an outcome of the slip's step.
pub fn advance(definition: &Definition, slip: &Slip, outcome: Outcome, now_ms: i64) -> Decision {
    let _ = (definition, slip, outcome, now_ms);
    todo!()
}

/// A native step that this worker does not have: the slip rests until one comes that has it.
pub fn missing_native(definition: &Definition, slip: &Slip) -> Hold {
    let _ = (definition, slip);
    todo!()
}

/// The event to append when an operator sends a parked job on. `hold` is what was released.
pub fn resumed(definition: &Definition, hold: &Hold, now_ms: i64) -> JobEvent {
    let _ = (definition, hold, now_ms);
    todo!()
}
