//! The time that is left to a slip, of its job and of its step.
//!
//! A step's time goes on while its slip is at a worker and while it rests. A rest that a breaker ends does not count.

use serde_json::Value;

use super::{StepError, code};
use crate::definition::{Definition, Step};
use crate::slip::{Phase, Slip};

/// The member of [`Slip::step_state`] that keeps what was left of the step's time when it came to a breaker.
const LEFT_MS: &str = "left_ms";

pub(super) fn is_past(deadline_ms: Option<i64>, now_ms: i64) -> bool {
    deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms)
}

pub(super) fn step_deadline_error() -> StepError {
    let message = "the step did not end before its deadline".to_owned();
    StepError { code: code::DEADLINE_EXCEEDED.to_owned(), message, status: None }
}

pub(super) fn deadline_error() -> StepError {
    let message = "the job did not end before its deadline".to_owned();
    StepError { code: code::DEADLINE_EXCEEDED.to_owned(), message, status: None }
}

/// The time limit of an attempt, or of a rest; on the way forward, it ends with the deadlines of step and job at the
/// latest.
pub(super) fn time_left_ms(limit_ms: u64, slip: &Slip, now_ms: i64) -> u64 {
    if slip.phase == Phase::Undo {
        return limit_ms;
    }
    let of_job = slip.deadline_ms.map(|deadline_ms| u64::try_from(deadline_ms.saturating_sub(now_ms)).unwrap_or(0));
    let of_step = slip.step_left_ms.map(|left_ms| u64::try_from(left_ms).unwrap_or(0));
    [of_job, of_step].into_iter().flatten().fold(limit_ms, u64::min)
}

/// The slip after a rest of this length, which counts towards its step's time.
pub(super) fn rested(slip: Slip, rest_ms: u64) -> Slip {
    Slip { step_left_ms: slip.step_left_ms.map(|left_ms| left_ms.saturating_sub_unsigned(rest_ms).max(0)), ..slip }
}

/// The slip as it comes to its step: the step's time begins with the first look at it.
pub fn begin_time(definition: &Definition, slip: Slip) -> Slip {
    let slip = go_on_with_time(slip);
    let deadline_ms = definition.step(&slip.step).filter(|_| slip.phase == Phase::Forward).and_then(Step::deadline_ms);
    let whole_ms = deadline_ms.map(|deadline_ms| i64::try_from(deadline_ms).unwrap_or(i64::MAX));
    Slip { step_left_ms: whole_ms.map(|whole_ms| slip.step_left_ms.unwrap_or(whole_ms)), ..slip }
}

/// In front of a breaker it rests for as long as the step's time goes at most: it comes back without any by its time,
/// and with what it had ([`go_on_with_time`]) by the breaker.
pub(super) fn stop_time(mut slip: Slip) -> Slip {
    if let Some(left_ms) = slip.step_left_ms {
        slip.keep(LEFT_MS, Some(left_ms.into()));
        slip.step_left_ms = Some(0);
    }
    slip
}

/// Somebody has sent it on before the step's time was over.
fn go_on_with_time(mut slip: Slip) -> Slip {
    let Some(left_ms) = slip.kept(LEFT_MS).map(Value::as_i64) else { return slip };
    slip.keep(LEFT_MS, None);
    let left_ms = left_ms.filter(|_| slip.released.is_some());
    Slip { step_left_ms: left_ms.or(slip.step_left_ms), ..slip }
}
