//! Everything that can happen to a token at a step, as a worker would meet it.

use flow::decide::{Effect, HttpAnswer, Outcome, StepError, classify, code};
use flow::definition::{Call, Definition, HEADERS_READ, Http, Step};
use flow::slip::{Phase, Slip};
use serde_json::{Value, json};

use crate::sample::set;
use crate::scan::expressions;

/// Statuses that say nothing of an earlier attempt, or are even its consequence. A step that names one of them in
/// `fail_on` takes it for "nothing was done" all the same.
const SAYS_NOTHING: [u16; 7] = [401, 403, 408, 409, 423, 425, 429];
/// A plain no: the first of these that a step does not name.
const PLAIN_REFUSALS: [u16; 5] = [400, 422, 403, 405, 406];
/// An answer that is a failure for good, and says nothing of the effect.
const REDIRECT: u16 = 302;

/// The kinds of events in the life of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// Done, with the step's output of this number.
    Succeeds { output: usize },
    /// A no, with this status; native steps have none.
    Refused { status: Option<u16> },
    /// A no that `fail_on` names.
    Named { status: u16 },
    /// No answer came.
    NoAnswer { done: bool },
    /// Nothing was sent.
    Unreachable,
    /// An answer after which no attempt helps, and which leaves the effect open.
    Redirected { done: bool },
    /// Done, and the output cannot be had.
    OutputLost,
    /// The worker stopped before its commit.
    WorkerLost { done: bool },
    /// A worker that is gone may have made the call.
    NobodyKnows,
    /// `verify` says that it was done, with the step's output of this number.
    SaidDone { output: usize },
    /// `verify` says that it was not done. `late`: its call was under way, and has its effect after that.
    SaidNotDone { late: bool },
    /// `verify` gives no answer, and may be asked again.
    Unanswered,
    /// `verify` cannot tell.
    CannotTell,
    /// The time of the step passes.
    StepDeadlinePasses,
    /// The call cannot be made, since an expression cannot be evaluated.
    Unevaluable { message: String },
    /// It sleeps, or waits for a signal.
    Rests,
    /// The sleep is over.
    Slept,
    /// The signal comes, with the payload of this number.
    Signalled { output: usize },
    /// Somebody rejects.
    Rejected,
    /// The work was accepted.
    Accepted { done: bool },
    /// The callback tells a failure.
    CalledBackFailed { retryable: bool },
    /// The time for the callback is over.
    NotCalledBack { done: bool },
    /// The poll says that the work is done, with the output of this number.
    Polled { output: usize },
    /// The poll says that it is not.
    NotYet,
    /// The poll is refused.
    PollRefused { done: bool },
    /// The time for the poll is over.
    PolledInVain { done: bool },
    /// The time for the signal is over.
    WaitedInVain,
    /// The step is looked at again, and its condition does not hold.
    SkippedAnew,
    /// Time passes.
    DeadlinePasses,
    /// The deadline has passed, so the step is not called.
    DeadlineFound,
    /// Somebody wants the job cancelled.
    Cancelled,
    /// An operator sends a parked job on.
    Resumed,
    /// An operator says that the step was done, with the step's output of this number.
    RuledDone { output: usize },
    /// An operator says that the step was not done.
    RuledNotDone,
    /// An operator says that the step was undone by hand.
    RuledUndone,
}

impl What {
    /// The number of the output with which the step is done.
    pub(crate) const fn output(&self) -> Option<usize> {
        match self {
            Self::Succeeds { output }
            | Self::SaidDone { output }
            | Self::RuledDone { output }
            | Self::Signalled { output }
            | Self::Polled { output } => Some(*output),
            _ => None,
        }
    }
}

/// The change of what stands at the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Done,
    Undone,
}

/// An answer to a call, as the worker sees it, and the ways in which it may have come about.
pub(crate) struct Possible {
    pub(crate) outcome: Outcome,
    pub(crate) ways: Vec<(What, Change)>,
}

/// Every answer that a call of this slip may get. `stands`: an earlier attempt has had its effect.
pub(crate) fn answers(definition: &Definition, slip: &Slip, outputs: &[Value], stands: bool) -> Vec<Possible> {
    let Some(step) = definition.step(&slip.step) else { return Vec::new() };
    let Some(action) = step.action(slip.phase) else { return Vec::new() };
    let changed = match slip.phase {
        Phase::Forward if has_effect(step) => Change::Done,
        Phase::Forward => Change::None,
        Phase::Undo => Change::Undone,
    };
    match &action.call {
        Call::Http(http) => http_answers(definition, slip, http, outputs, changed, stands),
        Call::Native(_) => native_answers(slip, outputs, changed),
    }
}

/// Every answer to the question whether the step was done. `stands`: it was. An answer is taken to be true, unless the
/// call may be under way when it is given.
pub(crate) fn verdicts(step: &Step, slip: &Slip, outputs: &[Value], stands: bool) -> Vec<Possible> {
    let mut all = Vec::new();
    let mut add = |outcome: Outcome, what: What, change: Change| {
        all.push(Possible { outcome, ways: vec![(what, change)] });
    };
    let ends_late = step.action(Phase::Forward).is_some_and(|action| step.settle_ms() < action.timeout_ms);
    if stands {
        for (number, output) in outputs.iter().enumerate() {
            add(Outcome::done(output.clone()), What::SaidDone { output: number }, Change::None);
        }
    } else {
        add(Outcome::NotDone, What::SaidNotDone { late: false }, Change::None);
    }
    if !stands && ends_late && slip.attempt_uncertain && has_effect(step) {
        add(Outcome::NotDone, What::SaidNotDone { late: true }, Change::Done);
    }
    add(failed(true, Effect::Unknown), What::Unanswered, Change::None);
    add(failed(false, Effect::Unknown), What::CannotTell, Change::None);
    all
}

/// False for a step that only reads.
pub(crate) fn has_effect(step: &Step) -> bool {
    step.action(Phase::Forward).is_none_or(|action| match &action.call {
        Call::Http(http) => !matches!(http.method.as_str(), "GET" | "HEAD"),
        Call::Native(_) => true,
    })
}

fn http_answers(
    definition: &Definition,
    slip: &Slip,
    http: &Http,
    outputs: &[Value],
    changed: Change,
    stands: bool,
) -> Vec<Possible> {
    let mut all = Vec::new();
    let mut add = |answer: HttpAnswer, ways: Vec<(What, Change)>| {
        all.push(Possible { outcome: classify(definition, slip, answer, 0), ways });
    };
    let poll = definition.step(&slip.step).filter(|_| slip.phase == Phase::Forward);
    let accepts = poll.is_some_and(|step| step.completion().is_some());
    if accepts {
        let body = accepting_body(definition, &slip.step).to_string().into_bytes();
        let headers = HEADERS_READ.map(|(_, name)| (name.to_owned(), "/x".to_owned())).to_vec();
        let (retry_after, content_type) = (None, None);
        let answer = HttpAnswer::Response { status: 202, retry_after, content_type, headers, body };
        add(answer, both(changed, |done| What::Accepted { done }));
    }
    for (number, output) in outputs.iter().enumerate().filter(|_| !accepts) {
        let (headers, body) = (kept_headers(http), output.to_string().into_bytes());
        let (status, retry_after, content_type) = (200, None, None);
        let answer = HttpAnswer::Response { status, retry_after, content_type, headers, body };
        add(answer, vec![(What::Succeeds { output: number }, changed)]);
    }
    let is_plain = |status: &&u16| !http.fail_on.contains(status) && !http.retry_on.contains(status);
    if let Some(status) = PLAIN_REFUSALS.iter().find(is_plain) {
        add(response(*status, Vec::new()), vec![(What::Refused { status: Some(*status) }, Change::None)]);
    }
    if slip.phase == Phase::Forward {
        for status in named(&http.fail_on, stands) {
            add(response(status, Vec::new()), vec![(What::Named { status }, Change::None)]);
        }
        if !accepts {
            add(
                HttpAnswer::TooLarge { status: 200, limit_bytes: 0, has_store: false },
                vec![(What::OutputLost, changed)],
            );
        }
        if is_plain(&&REDIRECT) {
            add(response(REDIRECT, Vec::new()), both(changed, |done| What::Redirected { done }));
        }
    }
    add(HttpAnswer::TimedOut, both(changed, |done| What::NoAnswer { done }));
    add(HttpAnswer::ConnectFailed(String::new()), vec![(What::Unreachable, Change::None)]);
    all
}

/// It was done, or it was not: the worker does not know.
fn both(changed: Change, what: impl Fn(bool) -> What) -> Vec<(What, Change)> {
    vec![(what(true), changed), (what(false), Change::None)]
}

/// The answer that accepts the work of a step, with all that its poll reads of it.
pub(crate) fn accepting_body(definition: &Definition, step: &str) -> Value {
    let mut body = json!({});
    let steps = definition.document()["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let poll = steps.iter().find(|entry| entry["id"] == step).map(|entry| &entry["poll"]);
    for path in poll.into_iter().flat_map(expressions).flat_map(|scanned| scanned.paths) {
        let names: Vec<&str> = path.split('.').collect();
        if let ["response", "body", names @ ..] = names.as_slice() {
            set(&mut body, names, Some(json!("x")));
        }
    }
    body
}

/// One status of `fail_on` that a service gives only if nothing was done under the key, and one that says nothing.
fn named(fail_on: &[u16], stands: bool) -> Vec<u16> {
    let honest = fail_on.iter().find(|status| !says_nothing(**status)).filter(|_| !stands);
    let other = fail_on.iter().find(|status| says_nothing(**status));
    [honest, other].into_iter().flatten().copied().collect()
}

/// True for a status that a service may give though an earlier attempt was done.
pub(crate) fn says_nothing(status: u16) -> bool {
    SAYS_NOTHING.contains(&status) || !(400..500).contains(&status)
}

fn response(status: u16, body: Vec<u8>) -> HttpAnswer {
    HttpAnswer::Response { status, retry_after: None, content_type: None, headers: Vec::new(), body }
}

/// A value for each header that the step keeps.
pub(crate) fn kept_headers(http: &Http) -> Vec<(String, String)> {
    http.keep_headers.iter().map(|name| (name.clone(), "x".to_owned())).collect()
}

/// As the verdicts of a native step are (`workers::NativeError`).
fn native_answers(slip: &Slip, outputs: &[Value], changed: Change) -> Vec<Possible> {
    let mut all = Vec::new();
    let mut add = |outcome: Outcome, ways: Vec<(What, Change)>| all.push(Possible { outcome, ways });
    for (number, output) in outputs.iter().enumerate() {
        let outcome = Outcome::done(output.clone());
        add(outcome, vec![(What::Succeeds { output: number }, changed)]);
    }
    add(failed(false, Effect::Refused), vec![(What::Refused { status: None }, Change::None)]);
    if slip.phase == Phase::Forward {
        add(Outcome::too_large("the output is too large"), vec![(What::OutputLost, changed)]);
    }
    add(failed(true, Effect::Unknown), both(changed, |done| What::NoAnswer { done }));
    add(failed(true, Effect::Unsent), vec![(What::Unreachable, Change::None)]);
    all
}

fn failed(retryable: bool, effect: Effect) -> Outcome {
    let error = StepError { code: code::STEP_FAILED.to_owned(), message: String::new(), status: None };
    Outcome::Failed { error, retryable, effect, retry_after_ms: None }
}
