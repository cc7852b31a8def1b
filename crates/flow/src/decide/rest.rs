//! Slips that rest without an outcome of their step: others are before them, or something that they need is not here.

use super::time_left::{is_past, rested, time_left_ms};
use super::{Decision, Next, backoff, code};
use crate::definition::{Definition, limit};
use crate::event::{EventKind, JobEvent, JobStatus};
use crate::id::JobId;
use crate::slip::{Failure, Hold, HoldReason, Phase, Search, Slip};
use crate::view::Running;

/// The shortest rest of a slip that waits for room, before it is tried again; the longest is twice as long.
const ROOM_DELAY_MS: u64 = 5_000;
/// Characters of what is missing: it travels with the slip.
const MISSING_CHARS_MAX: usize = 300;

/// Something that a slip needs, and this worker does not have: never the job's fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The kind of it.
    pub kind: MissingKind,
    /// What it is, for a person.
    pub what: String,
}

impl Missing {
    /// The topic of this queue is not there.
    pub fn queue(queue: &str) -> Self {
        let what = format!("queue `{queue}` has no topic (`meanwhile flows apply` creates it)");
        Self { kind: MissingKind::Queue, what }
    }
}

/// The kinds of things that a slip needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MissingKind {
    /// The flow is not known here, or its document cannot be read by this version.
    Flow,
    /// The flow has no such step.
    Step,
    /// A native step.
    Native,
    /// A variable of the environment, or a secret.
    Setting,
    /// The topic of the queue.
    Queue,
    /// A later version.
    Version,
}

impl MissingKind {
    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Step => "step",
            Self::Native => "native",
            Self::Setting => "setting",
            Self::Queue => "queue",
            Self::Version => "version",
        }
    }
}

/// What the slip needs is not at this worker: it rests, and looks again, more and more rarely, for as long as it takes.
/// It is told of when it begins, when something else is missing than before, and then ever more rarely too.
///
/// `queue` is where it goes after its rest; `steps_total` is how many steps its flow has, if that is known.
pub fn rest_until_there(slip: &Slip, queue: &str, steps_total: u32, missing: &Missing, now_ms: i64) -> Decision {
    let plain = |character: char| if character.is_control() { ' ' } else { character };
    let what: String = missing.what.chars().take(MISSING_CHARS_MAX).map(plain).collect();
    let before = slip.search.as_ref();
    let looks = before.map_or(0, |search| search.looks).saturating_add(1);
    let is_news = looks.is_power_of_two() || before.is_none_or(|search| search.missing != what);
    let name = format!("{}:{}:{}", slip.job, slip.branch, slip.hop);
    let again_after_ms = by_deadline_ms(slip, backoff::look_again_ms(looks, &name), now_ms);
    let events =
        if is_news { vec![missing_event(slip, steps_total, &what, again_after_ms, now_ms)] } else { Vec::new() };
    let slip = Slip { search: Some(Search { looks, missing: what }), ..rested(slip.clone(), again_after_ms) };
    let mut hold = at_rest(slip, queue, HoldReason::MissingStep);
    hold.release_after_ms = Some(again_after_ms);
    Decision { next: Next::Hold(hold), events }
}

/// The rest, or what is left of the time of the job or of the step: the look at its end finds that it has failed, where
/// the flow is known. A job whose time is over already waits for somebody who knows the flow.
fn by_deadline_ms(slip: &Slip, rest_ms: u64, now_ms: i64) -> u64 {
    match time_left_ms(rest_ms, slip, now_ms) {
        0 => rest_ms,
        left_ms => left_ms,
    }
}

/// True if the job's time is over, so that no further step of it is run.
pub fn is_expired(slip: &Slip, now_ms: i64) -> bool {
    slip.phase == Phase::Forward && is_past(slip.deadline_ms, now_ms)
}

/// The rest of a record that this version cannot read, in milliseconds: the older its job, the longer. `name` is its
/// place.
pub fn rest_unread_ms(job: Option<JobId>, name: &str, now_ms: i64) -> u64 {
    let age_ms = now_ms.saturating_sub(job.map_or(0, JobId::created_at_ms));
    backoff::look_by_age_ms(u64::try_from(age_ms).unwrap_or_default(), name)
}

fn missing_event(slip: &Slip, steps_total: u32, what: &str, again_after_ms: u64, now_ms: i64) -> JobEvent {
    let status = match slip.phase {
        Phase::Forward => JobStatus::Waiting,
        Phase::Undo => JobStatus::Compensating,
    };
    let failure = Failure {
        step: slip.step.clone(),
        code: code::MISSING.to_owned(),
        message: what.to_owned(),
        status: None,
        attempts: slip.attempt,
    };
    JobEvent {
        step: Some(slip.step.clone()),
        attempts: slip.attempt,
        next_attempt_after_ms: Some(again_after_ms),
        data: Some(failure.to_json()),
        ..JobEvent::about(slip, steps_total, EventKind::StepRetrying, status, now_ms)
    }
}

/// A step that has run for long leaves its queue: the token becomes a hold of the worker that runs it, which goes on
/// with the call and, when it is over, gives the outcome to [`advance`](super::advance) with the hold's slip. If the
/// worker is lost, that slip is sent again: its step may have been begun. A step that must not be repeated
/// leaves before its call is made: the hold is its mark.
pub fn detach(definition: &Definition, slip: &Slip, running: &Running, now_ms: i64) -> (Hold, JobEvent) {
    let status = match slip.phase {
        Phase::Forward => JobStatus::Running,
        Phase::Undo => JobStatus::Compensating,
    };
    let mut event = JobEvent::about(slip, steps_total(definition), EventKind::StepRunning, status, now_ms);
    event.step = Some(slip.step.clone());
    event.attempts = slip.attempt.saturating_add(1);
    event.data = Some(running.to_json());
    let slip = Slip { search: None, ..super::doubt::lost(definition, slip) };
    let queue = definition.queue_of(&slip.step).unwrap_or(limit::QUEUE_DEFAULT);
    (at_rest(slip, queue, HoldReason::Running), event)
}

/// A slip whose ordering key is taken in its queue, by a step that has run for long: it rests until its turn comes.
pub fn wait_turn(slip: &Slip, queue: &str) -> Hold {
    at_rest(slip.clone(), queue, HoldReason::Turn)
}

/// A step that is known to take long, in a queue where too many such steps are under way: it rests for some seconds.
pub fn wait_for_room(slip: &Slip, queue: &str) -> Hold {
    let delay_ms = ROOM_DELAY_MS + backoff::spread_ms(ROOM_DELAY_MS, &format!("{}:{}", slip.job, slip.hop));
    let mut hold = at_rest(rested(slip.clone(), delay_ms), queue, HoldReason::Room);
    hold.release_after_ms = Some(delay_ms);
    hold
}

/// The number of steps that a flow has.
pub fn steps_total(definition: &Definition) -> u32 {
    u32::try_from(definition.steps().len()).unwrap_or(u32::MAX)
}

/// The token one hop on, at rest without an end of its own.
pub(super) fn at_rest(slip: Slip, queue: &str, reason: HoldReason) -> Hold {
    let slip = Slip { hop: slip.hop.saturating_add(1), ..slip };
    Hold { slip, queue: queue.to_owned(), reason, release_after_ms: None, signal: None, limit: None }
}
