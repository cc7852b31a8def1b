//! A step of a flow, compiled.

use std::sync::Arc;

use crate::expression::{Expression, Template, UrlTemplate};
use crate::slip::Phase;

pub(crate) use super::auth::Auth;
use super::completion::{Callback, Completion, Poll};
pub use super::rest::{Approve, OnTimeout, Sleep, Wait};
use super::simulate::Simulate;

/// The retry policy of an action: attempts and the delays between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, the first one included.
    pub attempts: u32,
    /// The upper bound of the first delay; it doubles with every attempt.
    pub backoff_min_ms: u64,
    /// The upper bound of any delay.
    pub backoff_max_ms: u64,
}

impl Retry {
    /// The policy of a step that says nothing.
    pub const STEP_DEFAULT: Self = Self { attempts: 5, backoff_min_ms: 200, backoff_max_ms: 30_000 };
    /// The policy of a compensation that says nothing: an undo that is given up needs a person.
    pub const UNDO_DEFAULT: Self = Self { attempts: 10, backoff_min_ms: 200, backoff_max_ms: 30_000 };
}

/// One step of a flow.
pub struct Step {
    /// Its id, unique within the flow.
    pub id: String,
    /// The queue whose workers run it.
    pub queue: String,
    /// The condition under which it is run at all.
    pub(crate) when: Option<Template>,
    /// The name of what it calls, for breakers and limits; without it the host of its URL.
    pub downstream: Option<String>,
    /// The limits of what it calls.
    pub limits: Limits,
    /// The way on where its call has failed for good, or its breaker is open.
    pub(crate) fallback: Option<Fallback>,
    /// True if an expression of the flow reads the status or the headers of its answer, so that they travel on.
    pub(crate) answer_is_read: bool,
    /// The work of the step, by its kind.
    pub kind: StepKind,
}

/// The way on for a job whose step has failed for good, or is not to be called.
pub(crate) enum Fallback {
    /// This becomes the step's output.
    Value(Template),
    /// The job goes on with this later step, without an output of this one.
    Step(String),
}

/// The limits of the calls to one downstream, for all workers together; none: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Calls begun in a minute.
    pub per_minute: Option<u32>,
    /// Calls under way at a time.
    pub in_flight: Option<u32>,
}

impl Limits {
    /// Both at once: of each limit the lower one.
    #[must_use]
    pub fn strictest(self, other: Self) -> Self {
        let lower = |one: Option<u32>, two: Option<u32>| match (one, two) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        Self { per_minute: lower(self.per_minute, other.per_minute), in_flight: lower(self.in_flight, other.in_flight) }
    }
}

/// The kinds of steps.
pub enum StepKind {
    /// A call to the other side, which may be undone by another one.
    Call {
        /// The step's own work.
        action: Box<Action>,
        /// The call that undoes it.
        compensation: Option<Box<Action>>,
        /// False: it is never repeated while it may have been done.
        idempotent: bool,
        /// The question that decides about an unknown outcome of a step that is not idempotent.
        verify: Option<Box<Verify>>,
        /// The longest time of a visit in milliseconds: attempts, pauses and rests together.
        deadline_ms: Option<u64>,
        /// The time within which a call whose outcome is unknown may still have its effect, after an undo that found
        /// none, in milliseconds. Zero: none is expected.
        settle_ms: u64,
        /// True: a call under way is broken off when its job is cancelled.
        aborts: bool,
        /// The end of a step whose answer only accepts the work.
        completion: Option<Completion>,
    },
    /// A rest until a time.
    Sleep(Sleep),
    /// A rest until a signal comes.
    Wait(Box<Wait>),
}

impl Step {
    /// The call to make in this phase, if the step has one.
    pub fn action(&self, phase: Phase) -> Option<&Action> {
        match (&self.kind, phase) {
            (StepKind::Call { action, .. }, Phase::Forward) => Some(action),
            (StepKind::Call { compensation, .. }, Phase::Undo) => compensation.as_deref(),
            (StepKind::Sleep(_) | StepKind::Wait(_), _) => None,
        }
    }

    /// The step with which the job goes on where this one has not done what it is for.
    pub(crate) fn jump(&self) -> Option<&str> {
        match (&self.fallback, self.wait().map(|wait| &wait.on_timeout)) {
            (Some(Fallback::Step(step)), _) | (None, Some(OnTimeout::Step(step))) => Some(step),
            _ => None,
        }
    }

    /// Its request, where it is an HTTP call.
    pub fn http(&self) -> Option<&Http> {
        match self.action(Phase::Forward).map(|action| &action.call) {
            Some(Call::Http(http)) => Some(http),
            Some(Call::Native(_)) | None => None,
        }
    }

    /// The signal that it waits for, if it does.
    pub fn wait(&self) -> Option<&Wait> {
        match &self.kind {
            StepKind::Wait(wait) => Some(wait),
            StepKind::Call { .. } | StepKind::Sleep(_) => None,
        }
    }

    /// The end of a step whose answer only accepts the work, if it is one.
    pub const fn completion(&self) -> Option<&Completion> {
        match &self.kind {
            StepKind::Call { completion, .. } => completion.as_ref(),
            StepKind::Sleep(_) | StepKind::Wait(_) => None,
        }
    }

    /// The callback that ends it, if one does.
    pub const fn callback(&self) -> Option<&Callback> {
        match self.completion() {
            Some(Completion::Callback(callback)) => Some(callback),
            Some(Completion::Poll(_)) | None => None,
        }
    }

    /// The poll that ends it, if one does.
    pub fn poll(&self) -> Option<&Poll> {
        match self.completion() {
            Some(Completion::Poll(poll)) => Some(poll),
            Some(Completion::Callback(_)) | None => None,
        }
    }

    /// True when it is to be undone once it was done, or may have been.
    pub fn is_undoable(&self) -> bool {
        self.action(Phase::Undo).is_some()
    }

    /// False: while it may have been done, it is not repeated without a word of `verify` or of an operator.
    pub const fn is_idempotent(&self) -> bool {
        match &self.kind {
            StepKind::Call { idempotent, .. } => *idempotent,
            StepKind::Sleep(_) | StepKind::Wait(_) => true,
        }
    }

    /// The question whether it was done.
    pub fn verify(&self) -> Option<&Verify> {
        match &self.kind {
            StepKind::Call { verify, .. } => verify.as_deref(),
            StepKind::Sleep(_) | StepKind::Wait(_) => None,
        }
    }

    /// The longest time of a visit in milliseconds.
    pub const fn deadline_ms(&self) -> Option<u64> {
        match &self.kind {
            StepKind::Call { deadline_ms, .. } => *deadline_ms,
            StepKind::Sleep(_) | StepKind::Wait(_) => None,
        }
    }

    /// The time in milliseconds after which a step whose outcome is unknown is undone once more, if its undo found
    /// nothing. Zero: it is not.
    pub const fn settle_ms(&self) -> u64 {
        match &self.kind {
            StepKind::Call { settle_ms, .. } => *settle_ms,
            StepKind::Sleep(_) | StepKind::Wait(_) => 0,
        }
    }

    /// True: a call under way is broken off when its job is cancelled. Its outcome is unknown then.
    pub const fn aborts_on_cancel(&self) -> bool {
        match &self.kind {
            StepKind::Call { aborts, .. } => *aborts,
            StepKind::Sleep(_) | StepKind::Wait(_) => false,
        }
    }

    /// The retry policy of its call in this phase.
    pub fn retry(&self, phase: Phase) -> Option<Retry> {
        self.action(phase).map(|action| action.retry)
    }

    /// True when the job's caller may be shown its own 4xx as they are.
    pub fn exposes_failures(&self) -> bool {
        self.http().is_some_and(|http| http.expose)
    }

    /// True when the job's caller may be shown this status of its own as it is.
    pub fn exposes(&self, status: u16) -> bool {
        (400..500).contains(&status) && self.exposes_failures()
    }

    /// The native steps that a worker needs for it, its compensation included.
    pub fn natives(&self) -> impl Iterator<Item = &str> {
        let actions = [self.action(Phase::Forward), self.action(Phase::Undo)].into_iter().flatten();
        actions.filter_map(|action| match &action.call {
            Call::Http(_) => None,
            Call::Native(native) => Some(native.name.as_str()),
        })
    }
}

/// The question whether a step was done.
pub struct Verify {
    /// The request that asks.
    pub(crate) http: Http,
    /// True of the answer: it was done. False: it was not. None: that is not known yet.
    pub(crate) done_when: Template,
    /// The time limit of one request.
    pub timeout_ms: u64,
    /// How often it is asked in a row.
    pub retry: Retry,
}

/// Something to be done at the other side: a step's own work, or its compensation.
pub struct Action {
    /// HTTP or native.
    pub call: Call,
    /// The time limit of one attempt.
    pub timeout_ms: u64,
    /// The retry policy.
    pub retry: Retry,
    /// Its answer in a sandbox.
    pub simulate: Option<Box<Simulate>>,
}

/// The two kinds of actions.
pub enum Call {
    /// An HTTP request.
    Http(Box<Http>),
    /// A Rust function registered in the worker binary.
    Native(Native),
}

/// An HTTP request to be made.
pub struct Http {
    /// The method, upper case.
    pub method: String,
    pub(crate) url: UrlTemplate,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, Template)>,
    pub(crate) body: Option<Template>,
    /// The credentials that go with it.
    pub(crate) auth: Option<Arc<Auth>>,
    /// True if it tells where to report progress (`{{ progress.url }}`).
    pub(crate) tells_progress: bool,
    /// Statuses that are permanent failures whatever the defaults say.
    pub fail_on: Vec<u16>,
    /// Statuses that are worth another attempt whatever the defaults say.
    pub retry_on: Vec<u16>,
    /// True: a 4xx of this step may be shown to the job's caller as it is.
    pub expose: bool,
    /// The headers of its answer that expressions may read, in lower case.
    pub keep_headers: Vec<String>,
}

impl Http {
    /// True if the request uses this field of `callback` or `progress`, as `callback.url`.
    pub(super) fn uses(&self, path: &str) -> bool {
        let root = path.split('.').next().unwrap_or(path);
        let uses = |expression: &Expression| expression.paths().any(|known| known == path || known == root);
        let templates = self.headers.iter().map(|(_, template)| template).chain(&self.body);
        self.url.expressions().any(uses) || templates.flat_map(Template::expressions).any(uses)
    }
}

/// A native step to be called.
pub struct Native {
    /// The name under which it is registered.
    pub name: String,
    /// Its input; without it the job's.
    pub(crate) with: Option<Template>,
}
