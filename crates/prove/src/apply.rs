//! The state after a decision, and what the decision tells.

use flow::decide::{Decision, Next, code};
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::slip::{HoldReason, Phase};

use crate::probe::message_of;
use crate::state::{Rest, State};

/// A state after a decision.
pub(crate) struct Moved {
    pub(crate) state: State,
    /// Steps that were passed over, since their conditions do not hold.
    pub(crate) skipped: Vec<String>,
    /// An expression that could not be evaluated.
    pub(crate) unevaluable: Option<Unevaluable>,
}

/// An expression outside of a call that could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unevaluable {
    /// The step whose `when` it is; none for the result, or the answer.
    pub(crate) step: Option<String>,
    pub(crate) message: String,
}

/// Takes the decision in. What stands at the services is the caller's to change, before.
pub(crate) fn moved(before: &State, decision: &Decision) -> Moved {
    // One with data waited in vain.
    let is_skip = |event: &&JobEvent| event.kind == EventKind::StepSkipped && event.data.is_none();
    let skipped = decision.events.iter().filter(is_skip);
    let skipped = skipped.filter_map(|event| event.step.clone()).collect();
    let unevaluable = decision.events.iter().find_map(|event| {
        let data = event.data.as_ref()?;
        let message = message_of(event)?.to_owned();
        let is_when = event.kind == EventKind::StepFailed && message.starts_with("`when`");
        let is_result = message.starts_with("`result`") || message.starts_with("`respond`");
        let step = if is_when { event.step.clone() } else { None };
        (data["code"] == code::EXPRESSION_FAILED && (is_when || is_result)).then_some(Unevaluable { step, message })
    });
    let status = decision.events.last().map_or(JobStatus::Running, |event| event.status);
    let (slip, rest) = match &decision.next {
        Next::Step { slip, .. } | Next::RetryNow { slip, .. } => (slip, Rest::Ready),
        Next::Hold(hold) => match (hold.reason, hold.release_after_ms) {
            (HoldReason::Attention, _) => (&hold.slip, Rest::Parked),
            (HoldReason::Signal, after_ms) => (&hold.slip, Rest::Waiting { ends: after_ms.is_some() }),
            (_, Some(_)) => (&hold.slip, Rest::Ready),
            (_, None) => (&hold.slip, Rest::ForEver),
        },
        Next::End => (&before.slip, Rest::Ended(status)),
    };
    let mut state = State {
        slip: slip.clone(),
        rest,
        is_late: before.is_late,
        stands: before.stands.clone(),
        made: before.made,
        start: before.start,
        outputs: before.outputs.clone(),
    };
    let same = state.slip.step == before.slip.step && state.slip.visit == before.slip.visit;
    if !same || state.slip.phase == Phase::Undo {
        state.made = false;
    }
    if state.slip.phase == Phase::Undo {
        // The way back has no deadline.
        state.is_late = false;
        state.slip.deadline_ms = None;
    }
    if let Rest::Ended(status) = state.rest {
        if status == JobStatus::Succeeded {
            keep_unasked(&mut state, before);
        }
        end(&mut state);
    }
    Moved { state, skipped, unevaluable }
}

/// Of what stands after a success, only what the job did not ask for: each visit that was passed asked for its effect.
fn keep_unasked(state: &mut State, before: &State) {
    let slip = &before.slip;
    let last = (slip.step.as_str(), slip.visit);
    let passed = |step: &str, visit: u32| {
        (step, visit) == last || slip.done.iter().any(|done| done.step == step && done.visit == visit && !done.undone)
    };
    state.stands.retain(|(step, visit)| !passed(step, *visit));
}

/// After the end nothing is left but what stands.
fn end(state: &mut State) {
    state.slip.step.clear();
    state.slip.visit = 0;
    state.slip.done.clear();
    state.slip.attempt = 0;
    state.slip.attempt_uncertain = false;
    state.slip.failure = None;
    state.slip.phase = Phase::Forward;
    state.slip.deadline_ms = None;
    state.slip.released = None;
    state.slip.step_state = None;
    state.slip.step_left_ms = None;
    state.is_late = false;
    state.made = false;
}
