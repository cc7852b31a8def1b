//! What the events of a job change in the view of its steps.

use super::{JobView, Running, StepStatus, StepView, WaitingFor, at_rest, failure};
use crate::event::JobEvent;
use crate::slip::{Failure, HoldReason, Phase};

impl WaitingFor {
    /// True if it waits for the end of work that its call has begun.
    fn is_for_work(&self) -> bool {
        self.poll.is_some() || self.signal.as_deref().is_some_and(|name| name.starts_with("callback:"))
    }
}

impl JobView {
    pub(super) fn run_step(&mut self, event: &JobEvent, since_ms: i64) {
        let Some(step) = self.step_of(event, since_ms) else { return };
        step.running = event.data.as_ref().and_then(Running::from_json);
        step.next_attempt_at_ms = None;
        if event.phase == Phase::Forward {
            (step.status, step.attempts) = (StepStatus::Running, event.attempts);
        }
    }

    pub(super) fn end_step(&mut self, event: &JobEvent, status: StepStatus, since_ms: i64) {
        let Some(step) = self.step_of(event, since_ms) else { return };
        step.status = status;
        step.decided_by.clone_from(&event.actor);
        step.attempts = event.attempts;
        step.ended_at_ms = Some(event.at_ms);
        step.next_attempt_at_ms = None;
        step.error.clone_from(&event.data);
    }

    /// The job goes back, or has ended: what was under way has failed with it. A step that was not called yet, and
    /// rested only, is as if the job had not come to it.
    pub(super) fn give_up(&mut self, event: &JobEvent) {
        for step in &mut self.steps {
            let called = step.attempts > 0 || step.waiting_for.as_ref().is_some_and(WaitingFor::is_for_work);
            step.next_attempt_at_ms = None;
            step.waiting_for = None;
            match step.status {
                StepStatus::Waiting if !called => step.status = StepStatus::Pending,
                StepStatus::Waiting | StepStatus::Running | StepStatus::Retrying => {
                    step.status = StepStatus::Failed;
                    step.error = step.error.take().or_else(|| event.data.clone());
                }
                StepStatus::Pending
                | StepStatus::Succeeded
                | StepStatus::Skipped
                | StepStatus::Failed
                | StepStatus::Compensated => {}
            }
        }
    }

    pub(super) fn retry_step(&mut self, event: &JobEvent, since_ms: i64) {
        self.waiting.push(at_rest(event));
        let stuck = event.step.clone().filter(|_| event.phase == Phase::Undo);
        let Some(step) = self.step_of(event, since_ms) else { return };
        let after_ms = event.next_attempt_after_ms.and_then(|after_ms| i64::try_from(after_ms).ok());
        step.next_attempt_at_ms = after_ms.map(|after_ms| event.at_ms.saturating_add(after_ms));
        if event.phase == Phase::Forward {
            (step.status, step.attempts) = (StepStatus::Retrying, event.attempts);
            step.error.clone_from(&event.data);
        } else {
            step.undo_error.clone_from(&event.data);
        }
        if stuck.is_some() {
            self.compensation.get_or_insert_default().stuck = stuck;
        }
    }

    pub(super) fn rest_step(&mut self, event: &JobEvent, since_ms: i64) {
        let Some(step) = self.step_of(event, since_ms) else { return };
        let after_ms = event.next_attempt_after_ms.and_then(|after_ms| i64::try_from(after_ms).ok());
        let downstream = |reason| {
            let name = event.data.as_ref().and_then(|data| data["downstream"].as_str());
            name.filter(|_| event.reason == Some(reason)).map(str::to_owned)
        };
        if event.phase == Phase::Forward {
            step.status = StepStatus::Waiting;
        }
        let poll = event.data.as_ref().and_then(|data| data.get("poll"));
        let after_ms = poll.and_then(|poll| poll["timeout_ms"].as_i64()).or(after_ms);
        step.waiting_for = Some(WaitingFor {
            signal: event.signal.clone(),
            breaker: downstream(HoldReason::Breaker),
            limit: downstream(HoldReason::Limit),
            poll: poll.and_then(|poll| poll["host"].as_str()).map(str::to_owned),
            until_ms: after_ms.map(|after_ms| event.at_ms.saturating_add(after_ms)),
        });
        (step.ended_at_ms, step.next_attempt_at_ms) = (None, None);
        if event.phase == Phase::Forward {
            // One whose callback may come yet tells why it waits.
            step.error = event.data.clone().filter(|data| Failure::from_json(data).is_some());
        }
    }

    pub(super) fn undo_step(&mut self, event: &JobEvent) {
        if let Some(step) = self.step_of(event, event.at_ms) {
            step.status = StepStatus::Compensated;
            step.next_attempt_at_ms = None;
            step.undo_error = None;
            step.decided_by = event.actor.clone().or(step.decided_by.take());
        }
        let compensation = self.compensation.get_or_insert_default();
        compensation.stuck = None;
        compensation.undone.extend(event.step.clone());
    }

    pub(super) fn park(&mut self, event: &JobEvent, since_ms: i64) {
        self.parked.push(at_rest(event));
        self.error = failure(event);
        if let Some(step) = self.step_of(event, since_ms) {
            step.next_attempt_at_ms = None;
            match event.phase {
                Phase::Forward => step.error.clone_from(&event.data),
                Phase::Undo => step.undo_error.clone_from(&event.data),
            }
        }
        if event.phase == Phase::Undo {
            self.compensation.get_or_insert_default().stuck.clone_from(&event.step);
        }
    }

    /// The view of the event's step. `since_ms`: the time at which the job came to it, if this is its first event.
    fn step_of(&mut self, event: &JobEvent, since_ms: i64) -> Option<&mut StepView> {
        let id = event.step.as_ref()?;
        let index = self.steps.iter().position(|step| step.id == *id).unwrap_or_else(|| {
            self.steps.push(StepView { started_at_ms: Some(since_ms), ..StepView::pending(id) });
            self.steps.len() - 1
        });
        self.steps.get_mut(index)
    }
}
