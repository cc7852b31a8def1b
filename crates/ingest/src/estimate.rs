//! When a job will probably have ended, as its flow's jobs did lately. Pure.
//!
//! A step's duration counts from the end of the one before, so the time in its queue is part of it, as it was lately. A
//! queue that grows now makes the estimate too small until the first jobs have come through.

use flow::definition::Definition;
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::slip::HoldReason;
use flow::view::{JobView, StepStatus, StepView};
use store::statistics::{BySteps, Counts};

/// The part of all jobs that is to have ended when the estimate is over: as many are late as are early.
const MIDDLE: f64 = 0.5;

/// What is expected of a flow's jobs.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    steps: BySteps,
    /// The whole of a job.
    job_ms: Option<f64>,
}

impl Expected {
    pub(crate) fn of(steps: BySteps) -> Self {
        let job_ms = steps.get("").and_then(|jobs| jobs.durations.quantile_ms(MIDDLE));
        Self { steps, job_ms }
    }

    /// The time that a job takes from its begin.
    pub(crate) const fn job_ms(&self) -> Option<f64> {
        self.job_ms
    }

    /// The time that this still takes, having lasted for so long already. None if nothing is known of what lasts as
    /// long.
    fn left_ms(&self, name: &str, lasted_ms: f64) -> Option<f64> {
        let beyond_ms = self.steps.get(name)?.durations.quantile_beyond_ms(MIDDLE, lasted_ms)?;
        Some((beyond_ms - lasted_ms).max(0.0))
    }

    /// The time that a step takes that is still to come; nothing if it is mostly skipped.
    fn step_ms(&self, name: &str) -> Option<f64> {
        let Counts { succeeded, skipped, durations, .. } = self.steps.get(name)?;
        if skipped > succeeded { Some(0.0) } else { durations.quantile_ms(MIDDLE) }
    }
}

/// The time until a job's end, in milliseconds; none where nothing is known, or where it does not go on by itself.
pub(crate) fn left_ms(
    (view, events): (&JobView, &[(i64, JobEvent)]),
    definition: &Definition,
    expected: &Expected,
    now_ms: i64,
) -> Option<f64> {
    match view.status {
        JobStatus::Accepted | JobStatus::Running | JobStatus::Waiting => {}
        JobStatus::Compensating
        | JobStatus::NeedsAttention
        | JobStatus::Succeeded
        | JobStatus::Failed
        | JobStatus::Cancelled
        | JobStatus::Other(_) => return None,
    }
    let steps = view.steps_of(definition);
    let Some(last_over) = steps.iter().rposition(is_over) else {
        let begun_ms = begun_ms(view, events);
        let until_begun_ms = (begun_ms - now_ms).max(0) as f64;
        let lasted_ms = (now_ms - begun_ms).max(0) as f64;
        return Some(until_begun_ms + expected.left_ms("", lasted_ms)?);
    };
    // The present step, and those to come. What lies before them was done, or passed over.
    let mut coming = steps.iter().skip(last_over + 1);
    let Some(present) = coming.next() else { return Some(0.0) };
    let since_ms = steps.iter().filter_map(|step| step.ended_at_ms).max().unwrap_or(view.accepted_at_ms);
    let is_untouched = present.status == StepStatus::Pending && present.started_at_ms.is_none();
    let lasted_ms = (now_ms - since_ms).max(0) as f64;
    let present_ms = match expected.step_ms(&present.id) {
        // Nothing tells that it was not skipped.
        Some(0.0) if is_untouched => 0.0,
        _ => expected.left_ms(&present.id, lasted_ms)?,
    };
    let rest_ms = rests_until_ms(present).map_or(0.0, |until_ms| (until_ms - now_ms).max(0) as f64);
    coming.try_fold(present_ms.max(rest_ms), |sum, step| Some(sum + expected.step_ms(&step.id)?))
}

fn is_over(step: &StepView) -> bool {
    matches!(step.status, StepStatus::Succeeded | StepStatus::Skipped)
}

/// The end of a rest that ends by time only.
fn rests_until_ms(step: &StepView) -> Option<i64> {
    let waiting = step.waiting_for.as_ref().filter(|waiting| waiting.signal.is_none() && waiting.poll.is_none());
    step.next_attempt_at_ms.or_else(|| waiting?.until_ms)
}

/// When the job began, or is to begin.
fn begun_ms(view: &JobView, events: &[(i64, JobEvent)]) -> i64 {
    let late = |event: &JobEvent| {
        let is_late = event.hop == 0 && event.kind == EventKind::StepWaiting && event.reason == Some(HoldReason::Timer);
        let after_ms = event.next_attempt_after_ms.filter(|_| is_late)?;
        Some(event.at_ms.saturating_add_unsigned(after_ms))
    };
    events.iter().find_map(|(_, event)| late(event)).unwrap_or(view.accepted_at_ms)
}

/// In whole seconds, for `Retry-After`: a second at least.
pub(crate) fn retry_after_s(left_ms: Option<f64>, (usual_s, max_s): (u64, u64)) -> u64 {
    left_ms.map_or(usual_s, |ms| ((ms / 1_000.0).ceil() as u64).clamp(1, max_s.max(1)))
}

#[cfg(test)]
mod tests;
