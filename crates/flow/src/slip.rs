//! The slip: the record that carries a job to its next step. It is the job's token.

use crate::answer::StepAnswer;
use crate::deref_to_facts;
use crate::facts::JobFacts;
use serde_json::{Map, Value};

use crate::id::TokenId;
use crate::word::Word;

/// The direction of a job.
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
    /// True once its compensation succeeded or found nothing. A slip that comes to undo it still does so once more.
    pub undone: bool,
    /// For later versions.
    pub carried: CarriedStep,
}

/// Fields of a [`Completed`] that nothing in this version uses. `schemas/README.md` says what they are for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CarriedStep {
    /// The branch in which it was done.
    pub branch: String,
    /// Its place in the order in which steps are undone, across branches.
    pub sequence: i64,
    /// The time of its end, in milliseconds since the Unix epoch.
    pub ended_at_ms: Option<i64>,
    /// The word of the failure after which the job went on.
    pub error_code: Option<String>,
}

/// The search for what a slip needs: in vain, so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// The number of looks in a row.
    pub looks: u32,
    /// What was missing at the last one, for a person.
    pub missing: String,
}

/// The release of a slip that rested at the step it is at: its cause, and what that brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Released {
    /// The cause.
    pub by: ReleasedBy,
    /// A signal's payload.
    pub payload: Option<Value>,
}

/// The cause of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReleasedBy {
    /// The time for which it was to rest is over.
    Time,
    /// The time of the whole job is over.
    Deadline,
    /// The signal came that it waited for.
    Signal,
    /// An operator sent it on.
    Operator,
    /// Somebody wants the job cancelled.
    Cancel,
    /// The breaker of its downstream lets it pass: as the probe, or since a probe succeeded.
    Breaker,
    /// A cause of a later version.
    Other(Word),
}

impl ReleasedBy {
    /// Every cause of this version.
    pub const ALL: [Self; 6] = [Self::Time, Self::Deadline, Self::Signal, Self::Operator, Self::Cancel, Self::Breaker];

    /// The word used on Kafka.
    pub const fn as_str(&self) -> &str {
        match self {
            Self::Time => "time",
            Self::Deadline => "deadline",
            Self::Signal => "signal",
            Self::Operator => "operator",
            Self::Cancel => "cancel",
            Self::Breaker => "breaker",
            Self::Other(word) => word.as_str(),
        }
    }

    /// The reverse of [`ReleasedBy::as_str`], for what a later version may have written.
    pub fn read(text: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|by| by.as_str() == text);
        known.or_else(|| Word::new(text).map(Self::Other))
    }
}

/// The leave to make one attempt although the breaker of its downstream is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// The state of the breaker that it is for: void once the breaker has a later one.
    pub epoch: u64,
    /// True: the breaker waits for the outcome. A probe that fails in vain is no attempt of the step.
    pub is_probe: bool,
}

impl Pass {
    /// The payload of the release, the reverse of [`Slip::pass`].
    pub fn to_json(self) -> Value {
        serde_json::json!({ "epoch": self.epoch, "probe": self.is_probe })
    }
}

/// Fields of a slip that nothing in this version uses: it carries them on. `schemas/README.md` says what they are for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Carried {
    /// True if the step's `when` is still to be decided.
    pub check_when: bool,
    /// The mark of the run whose steps may all have been done.
    pub run: String,
    /// The join that its branch comes to.
    pub join: Option<String>,
    /// The item that its branch is for.
    pub item: Option<i64>,
    /// The next place in the order in which steps are undone.
    pub sequence: i64,
    /// The place of the input, where it does not travel with the slip.
    pub input_ref: Option<String>,
    /// The time before which the step is not to be run, in milliseconds since the Unix epoch.
    pub not_before_ms: Option<i64>,
}

/// The failure because of which a job is not going to succeed.
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

/// A job's token on its way to one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Slip {
    /// The facts of the job.
    pub facts: JobFacts,
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
    /// True when an earlier attempt of this visit may have had its effect, and nothing has ruled that out since.
    pub attempt_uncertain: bool,
    /// The job's input.
    pub input: Value,
    /// The steps done so far, in order.
    pub done: Vec<Completed>,
    /// Set once the job is not going to succeed.
    pub failure: Option<Failure>,
    /// The job's deadline, in milliseconds since the Unix epoch.
    pub deadline_ms: Option<i64>,
    /// 0 urgent, 1 normal, 2 bulk.
    pub priority: u8,
    /// Present while it looks in vain for what it needs.
    pub search: Option<Search>,
    /// Present once it has rested at its step because the step asked for it, or was released in an unusual way.
    pub released: Option<Released>,
    /// What its step keeps from one rest to the next, within one visit.
    pub step_state: Option<Value>,
    /// What is left of the time that one visit of its step may take, in milliseconds: a duration, since clocks differ.
    pub step_left_ms: Option<i64>,
    /// The visits of steps that no entry of `done` tells of, where the job may come to them again: the step's id and
    /// their number.
    pub visits: Vec<(String, u32)>,
    /// Features that a worker must have to take it, by their words ([`VERDICTS`](crate::decide::VERDICTS)).
    pub requires: Vec<String>,
    /// The answers of steps, as far as expressions of the flow read more of them than the output.
    pub answers: Vec<StepAnswer>,
    /// For later versions.
    pub carried: Carried,
}

deref_to_facts!(Slip);

impl Slip {
    /// The identity of the token that this slip is.
    pub fn token(&self) -> TokenId {
        TokenId { job: self.job, branch: self.branch.clone(), hop: self.hop }
    }

    /// The idempotency key that every attempt of this visit sends: `<job>:<step>:<visit>`, with `:undo` for the
    /// compensation, and `:undo:2` for the second one: a service that remembers keys would repeat its first answer.
    pub fn idempotency_key(&self) -> String {
        let suffix = match self.phase {
            Phase::Forward => "",
            Phase::Undo if self.undoes_again() => ":undo:2",
            Phase::Undo => ":undo",
        };
        format!("{}:{}:{}{suffix}", self.job, self.step, self.visit)
    }

    /// True if the step counts as undone already: its undo found nothing, and is made once more.
    pub fn undoes_again(&self) -> bool {
        let this = |done: &Completed| done.step == self.step && done.visit == self.visit;
        self.phase == Phase::Undo && self.done.iter().any(|done| done.undone && this(done))
    }

    /// What its step keeps under this name from one rest to the next.
    pub(crate) fn kept(&self, member: &str) -> Option<&Value> {
        self.step_state.as_ref()?.get(member)
    }

    /// Keeps this beside what is kept under other names; none: keeps nothing there any more.
    pub(crate) fn keep(&mut self, member: &str, value: Option<Value>) {
        let mut state = match self.step_state.take() {
            Some(Value::Object(state)) => state,
            Some(_) | None => Map::new(),
        };
        match value {
            Some(value) => drop(state.insert(member.to_owned(), value)),
            None => drop(state.remove(member)),
        }
        self.step_state = (!state.is_empty()).then_some(Value::Object(state));
    }

    /// True once the time of this visit is over.
    pub fn is_step_over(&self) -> bool {
        self.step_left_ms.is_some_and(|left_ms| left_ms <= 0)
    }

    /// The pass that the breaker of a downstream gave it, if it was released with one.
    pub fn pass(&self) -> Option<Pass> {
        let released = self.released.as_ref().filter(|released| released.by == ReleasedBy::Breaker)?;
        let payload = released.payload.as_ref()?;
        let is_probe = payload.get("probe").and_then(Value::as_bool).unwrap_or_default();
        Some(Pass { epoch: payload.get("epoch")?.as_u64()?, is_probe })
    }

    /// The Kafka key of the record that carries this slip: `tenant/flow/ordering key`.
    pub fn record_key(&self) -> String {
        format!("{}/{}/{}", self.tenant, self.flow, self.key)
    }
}

/// The reason for which a slip is at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldReason {
    /// It waits for the back-off before the next attempt.
    Backoff,
    /// It waits for an operator: the job is parked (`needs_attention`).
    Attention,
    /// It waits for a worker that has what it needs: the flow, a native step, a setting, the queue's topic.
    MissingStep,
    /// Its step is under way: a worker runs the call, whatever happens to the partition that the slip came from.
    Running,
    /// It waits for its turn: the step of another token with the same ordering key is under way in its queue.
    Turn,
    /// It waits for room: too many long steps of its queue are under way.
    Room,
    /// Its step sleeps.
    Timer,
    /// Its step waits for a signal.
    Signal,
    /// It waits to be read: the schema registry did not answer when its turn came, or a later version has written it.
    Unread,
    /// It waits for the breaker of the downstream that its step calls.
    Breaker,
    /// It waits for room within the limits of the downstream that its step calls, or within the share of retries.
    Limit,
    /// A reason of a later version. It rests until its time has come.
    Other(Word),
}

impl HoldReason {
    /// Every reason of this version.
    pub const ALL: [Self; 11] = [
        Self::Backoff,
        Self::Attention,
        Self::MissingStep,
        Self::Running,
        Self::Turn,
        Self::Room,
        Self::Timer,
        Self::Signal,
        Self::Unread,
        Self::Breaker,
        Self::Limit,
    ];

    /// The word used on Kafka, in Postgres and over HTTP.
    pub const fn as_str(&self) -> &str {
        match self {
            Self::Backoff => "backoff",
            Self::Attention => "attention",
            Self::MissingStep => "missing-step",
            Self::Running => "running",
            Self::Turn => "turn",
            Self::Room => "room",
            Self::Timer => "timer",
            Self::Signal => "signal",
            Self::Unread => "unread",
            Self::Breaker => "breaker",
            Self::Limit => "limit",
            Self::Other(word) => word.as_str(),
        }
    }

    /// The reverse of [`HoldReason::as_str`], for what a later version may have written.
    pub fn read(text: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|reason| reason.as_str() == text);
        known.or_else(|| Word::new(text).map(Self::Other))
    }
}

/// A slip at rest, and the reason. Holds carry durations; Postgres' clock sets their end.
#[derive(Debug, Clone, PartialEq)]
pub struct Hold {
    /// The slip to send on when the hold is released, as it should be sent.
    pub slip: Slip,
    /// The queue that it goes to.
    pub queue: String,
    /// The reason for its rest.
    pub reason: HoldReason,
    /// The time in milliseconds after which it is released by itself; none: only by another record.
    pub release_after_ms: Option<u64>,
    /// The name of the signal that it waits for.
    pub signal: Option<String>,
    /// The downstream whose breaker or limit it waits for.
    pub limit: Option<String>,
}
