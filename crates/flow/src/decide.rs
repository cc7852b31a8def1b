//! Decides what comes next; nothing else does.
//!
//! A worker calls [`prepare`] with a slip, makes the call that it asks for, gives the answer to [`classify`], and the
//! outcome to [`advance`]; it commits what [`Decision`] says. All of it is pure.
//!
//! A cancel is given as [`Outcome::Cancelled`] in place of an attempt, or of the outcome of one that was broken off.

use serde_json::Value;

use crate::body::Payload;
use crate::definition::Definition;
use crate::event::JobEvent;
use crate::id::JobId;
use crate::slip::{Hold, Phase, Slip};

mod answer;
mod authorize;
mod backoff;
mod call;
mod cancelled;
mod classify;
mod completion;
mod doubt;
mod downstream;
mod issue;
mod operator;
mod output;
mod pause;
mod reply;
mod request;
mod respond;
mod rest;
mod simulated;
mod time_left;
mod token;
mod words;

pub use crate::env::Env;
pub use answer::{HttpAnswer, replied, retry_after_ms};
pub use authorize::{ClientAuth, TokenClient};
pub use backoff::spread_ms;
pub use call::prepare;
pub use cancelled::{broken_off, is_cancellable, is_cancelled, redelivered};
pub use classify::classify;
pub use completion::{is_polling, poll_host};
pub use doubt::{asks_first, lost, marks_first};
pub use downstream::{Busy, Told, downstream, host_of, limits, told, told_by, wait_for_downstream};
pub use issue::{AccessToken, TokenRefused, TokenRequest};
pub use operator::{
    RESUMED_INDEX, Said, UNDONE_BY_HAND, VERDICTS, Verdict, awaits_verdict, can_be_ruled, resumed, ruled,
};
pub use output::is_document;
pub use reply::Reply;
pub use rest::{
    Missing, MissingKind, detach, is_expired, rest_unread_ms, rest_until_there, steps_total, wait_for_room, wait_turn,
};
pub use simulated::simulated;
pub use time_left::begin_time;

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

/// The call that a slip asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Prepared {
    /// Make this request, then [`classify`] the answer.
    Http(HttpCall),
    /// Call this function.
    Native(NativeCall),
    /// Nothing is called, and yet it takes its time: the flow is a sandbox.
    Simulated(Simulated),
    /// Nothing to call: hand this to [`advance`] (a missing value, a deadline that has passed).
    Outcome(Outcome),
    /// Nothing can be called here: the slip is to rest, see [`rest_until_there`].
    Missing(Missing),
}

/// The answer of a simulated call.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulated {
    /// The time that it takes, in milliseconds.
    pub after_ms: u64,
    /// Its outcome, for [`advance`].
    pub outcome: Outcome,
}

/// A request, ready to be sent. Its headers may hold credentials.
#[derive(Clone, PartialEq)]
pub struct HttpCall {
    /// The method, upper case.
    pub method: String,
    /// The absolute URL.
    pub url: String,
    /// The flow's own headers, names in lower case. `Idempotency-Key`, `traceparent` and the like are the worker's.
    pub headers: Vec<(String, String)>,
    /// The client with whose access token the call is sent; none: it needs none.
    pub token_client: Option<Box<TokenClient>>,
    /// The body, if there is one, as the flow's `content-type` says; without that header it is JSON.
    pub body: Option<Payload>,
    /// The time limit of the whole attempt.
    pub timeout_ms: u64,
    /// The value of the `Idempotency-Key` header; none for a request that only reads.
    pub idempotency_key: Option<String>,
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
    /// The idempotency key, the same for every attempt of the visit.
    pub idempotency_key: String,
    /// True when the function is to undo.
    pub undo: bool,
}

/// The failure of an attempt.
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
    /// The answer was a success that cannot be read.
    pub const UNREADABLE_ANSWER: &str = "unreadable-answer";
    /// The output, the slip or the result is over a size limit.
    pub const TOO_LARGE: &str = "too-large";
    /// The deadline of the job, or of the step, has passed.
    pub const DEADLINE_EXCEEDED: &str = "deadline-exceeded";
    /// A caller asked to cancel the job.
    pub const CANCELLED: &str = "cancelled";
    /// The attempt was broken off.
    pub const ABORTED: &str = "aborted";
    /// Something that the step needs is not there: it was not attempted.
    pub const MISSING: &str = "missing-step";
    /// A person said no.
    pub const REJECTED: &str = "rejected";
    /// The job came to a step too often.
    pub const TOO_MANY_VISITS: &str = "too-many-visits";
    /// The breaker of what the step calls is open, and the step has another way on.
    pub const BREAKER_OPEN: &str = "breaker-open";
    /// There was nothing to undo; the call may still have its effect.
    pub const NOTHING_TO_UNDO: &str = "nothing-to-undo";
    /// A document could not be read from the store of documents, or be kept there.
    pub const DOCUMENT_STORE: &str = "document-store";
    /// The token endpoint gave no access token for the call, which was not made.
    pub const NO_TOKEN: &str = "no-token";
    /// Nobody knows whether the step was done.
    pub const OUTCOME_UNKNOWN: &str = "outcome-unknown";
}

/// The possible effect, at the other side, of an attempt that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// This attempt did nothing; earlier ones may have.
    Unsent,
    /// A no: this attempt did nothing. An earlier one may have, since the no may be its consequence: 409 for what is
    /// there already, or 401 after a credential was changed.
    Refused,
    /// A no that the step names in `fail_on`: nothing was done, by this attempt or by an earlier one of this visit.
    RuledOut,
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
        /// More of its answer, where the flow makes use of it.
        reply: Option<Box<Reply>>,
    },
    /// The other side has taken the work, and will tell of its end, or can be asked for it.
    Accepted {
        /// The answer as `{status, body}`, where somebody reads it.
        response: Value,
        /// The other side asked for at least this delay.
        retry_after_ms: Option<u64>,
        /// The host that is polled, where one is: see [`poll_host`].
        host: Option<String>,
    },
    /// The poll tells that the work is not done, or tells nothing now.
    NotYet {
        /// The other side asked for at least this delay.
        retry_after_ms: Option<u64>,
    },
    /// It was not done, or not certainly.
    Failed {
        /// The failure.
        error: StepError,
        /// True when another attempt may help.
        retryable: bool,
        /// Its possible effect.
        effect: Effect,
        /// The other side asked for at least this delay.
        retry_after_ms: Option<u64>,
    },
    /// The step's `verify` says that it was not done.
    NotDone,
    /// On the way back: there was nothing to undo.
    NothingToUndo {
        /// The HTTP status that said so, if one did.
        status: Option<u16>,
    },
    /// The step was not run because its `when` does not hold.
    Skipped,
    /// The step rests.
    Rests(Rest),
    /// The step waited for a signal, in vain.
    NotSignalled,
    /// No attempt was made, or it was broken off ([`broken_off`]), because somebody wants the job cancelled.
    Cancelled,
}

/// A rest that a step asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// Its longest duration in milliseconds; none: until the signal comes.
    pub release_after_ms: Option<u64>,
    /// The signal that ends it.
    pub signal: Option<String>,
}

/// The consequences of an outcome. All of them are to be committed at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The next place of the token.
    pub next: Next,
    /// The events to publish, in order. Empty with [`Next::RetryNow`].
    pub events: Vec<JobEvent>,
}

/// The next place of a token.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// The token goes to a queue.
    Step {
        slip: Slip,
        /// The queue it goes to.
        queue: String,
    },
    /// The token stays: the same worker tries again after a short delay. No record is committed.
    RetryNow {
        /// The slip to prepare again (one attempt on, the same hop).
        slip: Slip,
        /// The delay in milliseconds.
        delay_ms: u64,
    },
    /// The token rests.
    Hold(Hold),
    /// The job has ended; there is no token any more.
    End,
}

impl Outcome {
    /// It was done, with this output, and there is no more to tell of it.
    pub const fn done(output: Value) -> Self {
        Self::Succeeded { output, reply: None }
    }

    /// The failure of a step whose slip, event or result does not fit into a record. The worker gives it to [`advance`]
    /// in place of the success whose decision it could not produce.
    pub fn too_large(message: impl Into<String>) -> Self {
        let error = StepError { code: code::TOO_LARGE.to_owned(), message: message.into(), status: None };
        Self::Failed { error, retryable: false, effect: Effect::Done, retry_after_ms: None }
    }
}

/// The first decision about a job, at its acceptance: `job.accepted` at hop 0, and the first slip at hop 1.
pub fn start(definition: &Definition, job: NewJob, now_ms: i64) -> Decision {
    token::Token::accepted(definition, job, now_ms).forward(0)
}

/// [`start`], with a rest before the first step that is to run. The time that the flow gives a job begins with the end
/// of that rest. A job that has nothing to run ends at once.
pub fn start_later(definition: &Definition, job: NewJob, after_ms: u64, now_ms: i64) -> Decision {
    token::Token::accepted(definition, job, now_ms).starting_after(after_ms).forward(0).rest_at_first(after_ms)
}

/// Decides the next move of the token after an outcome of the slip's step.
///
/// - Success goes on to the next step whose `when` holds, or ends the job. The last step's success wins over a
///   deadline.
/// - A failure that may pass is tried again while the policy, the deadline and `idempotent` allow it.
/// - After an unknown outcome of a step that must not be repeated its `verify` is asked, once the call cannot be under
///   way any more. It was done, then this is a success; it was not, then it may be called again. Where there is none,
///   or it cannot tell, the job is parked.
/// - A failure for good parks the job (`on_failure: park`), or starts the way back. A parked slip keeps its visit, and
///   with it its idempotency key, when something may have been done under it; otherwise it begins a new visit. Its
///   deadline is lifted: an operator decides when it ends.
/// - On the way back only a success (also 404 and 410) leads on; an undo that is given up parks the job. Where the
///   outcome of the step is unknown and there was nothing to undo, the step is undone once more after its
///   [`settle_ms`](crate::definition::Step::settle_ms).
/// - A step that rests lays the token to rest until its time is over or its signal comes, and goes on with what
///   released it. The job's deadline ends any rest.
/// - A step whose answer only accepts the work rests until its callback comes, or until its poll says that it is over.
///   From the acceptance on the step may have had its effect. Attempts without an answer may be called back, too: where
///   no further one is made, the callback is waited for.
/// - [`Outcome::Cancelled`] sends a job back. A job on its way back already is not changed by it.
pub fn advance(definition: &Definition, slip: &Slip, outcome: Outcome, now_ms: i64) -> Decision {
    let token = token::Token::arrived(definition, slip, now_ms);
    match (slip.phase, outcome) {
        (Phase::Forward, Outcome::Succeeded { output, reply }) => token.succeeded(output, reply),
        (Phase::Forward, Outcome::Accepted { response, retry_after_ms, host }) => {
            token.accepted_work(response, retry_after_ms, host)
        }
        (Phase::Forward, Outcome::NotYet { retry_after_ms }) => token.not_yet(retry_after_ms),
        (Phase::Forward, Outcome::Failed { error, retryable, effect, retry_after_ms }) => {
            token.failed(error, retryable, effect, retry_after_ms)
        }
        (Phase::Forward, Outcome::NothingToUndo { status }) => {
            token.failed(out_of_place(status), false, Effect::Refused, None)
        }
        (Phase::Forward, Outcome::NotDone) => token.not_done(),
        (Phase::Forward, Outcome::Skipped) => token.skipped(),
        (Phase::Forward, Outcome::Rests(rest)) => token.rests(rest),
        (Phase::Forward, Outcome::NotSignalled) => token.not_signalled(),
        (Phase::Forward, Outcome::Cancelled) => token.cancelled(),
        (Phase::Undo, Outcome::Succeeded { .. } | Outcome::Failed { effect: Effect::Done, .. }) => token.undone(),
        (Phase::Undo, Outcome::NothingToUndo { status }) => token.nothing_to_undo(status),
        (Phase::Undo, Outcome::Failed { error, retryable, retry_after_ms, .. }) => {
            token.undo_failed(error, retryable, retry_after_ms)
        }
        (
            Phase::Undo,
            Outcome::Accepted { .. }
            | Outcome::NotYet { .. }
            | Outcome::Cancelled
            | Outcome::Skipped
            | Outcome::Rests(_)
            | Outcome::NotSignalled
            | Outcome::NotDone,
        ) => token.unchanged(),
    }
}

/// A native step says so of its own work.
fn out_of_place(status: Option<u16>) -> StepError {
    let message = "the step says that there is nothing to undo, and was not asked to undo".to_owned();
    StepError { code: code::STEP_FAILED.to_owned(), message, status }
}

#[cfg(test)]
mod tests;
