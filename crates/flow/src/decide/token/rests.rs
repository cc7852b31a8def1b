//! Steps that rest: the token lies still until a time, or until a signal comes.

use serde_json::Value;

use super::{Decision, Effect, EventKind, HoldReason, JobEvent, JobStatus, Next, StepError, Token, code};
use crate::decide::{Rest, Verdict};
use crate::definition::OnTimeout;
use crate::slip::{Hold, Released, ReleasedBy};

impl Decision {
    /// The first slip of a job rests for this time before it goes to its queue, and the acceptance says so.
    pub(in crate::decide) fn rest_at_first(mut self, after_ms: u64) -> Self {
        let Next::Step { slip, queue } = self.next else { return self };
        if let Some(last) = self.events.last() {
            self.events.push(JobEvent {
                kind: EventKind::StepWaiting,
                status: JobStatus::Waiting,
                index: last.index.saturating_add(1),
                step: Some(slip.step.clone()),
                visit: slip.visit,
                attempts: 0,
                next_attempt_after_ms: Some(after_ms),
                reason: Some(HoldReason::Timer),
                data: None,
                ..last.clone()
            });
        }
        let reason = HoldReason::Timer;
        let hold = Hold { slip, queue, reason, release_after_ms: Some(after_ms), signal: None, limit: None };
        Self { next: Next::Hold(hold), events: self.events }
    }
}

impl Token<'_> {
    /// The job's deadline is as much later as its start.
    pub(in crate::decide) fn starting_after(mut self, after_ms: u64) -> Self {
        self.slip.deadline_ms = self.slip.deadline_ms.map(|deadline_ms| deadline_ms.saturating_add_unsigned(after_ms));
        self
    }

    /// Lays the token to rest. Its slip says already what its time means: whoever releases it then sends it on as it
    /// is.
    pub(in crate::decide) fn rests(self, rest: Rest) -> Decision {
        self.lie_down(rest, true, None)
    }

    /// `is_news`: an event tells of it, with this data.
    pub(super) fn lie_down(mut self, rest: Rest, is_news: bool, data: Option<Value>) -> Decision {
        let Rest { release_after_ms, signal } = rest;
        let left_ms = self
            .slip
            .deadline_ms
            .map(|deadline_ms| u64::try_from(deadline_ms.saturating_sub(self.now_ms)).unwrap_or_default());
        let (by, after_ms) = match (release_after_ms, left_ms) {
            (Some(after_ms), Some(left_ms)) if left_ms < after_ms => (ReleasedBy::Deadline, Some(left_ms)),
            (None, Some(left_ms)) => (ReleasedBy::Deadline, Some(left_ms)),
            (after_ms, _) => (ReleasedBy::Time, after_ms),
        };
        // The time of the step itself, where it has one, is found to be over by the worker that it comes to.
        let step_left_ms = self.slip.step_left_ms.and_then(|left_ms| u64::try_from(left_ms).ok());
        let (by, after_ms) = match step_left_ms {
            Some(left_ms) if after_ms.is_none_or(|after_ms| left_ms < after_ms) => (ReleasedBy::Time, Some(left_ms)),
            _ => (by, after_ms),
        };
        let reason = if signal.is_some() { HoldReason::Signal } else { HoldReason::Timer };
        if is_news {
            self.tell(JobEvent {
                reason: Some(reason),
                signal: signal.clone(),
                next_attempt_after_ms: after_ms,
                data,
                ..self.step_event(EventKind::StepWaiting, JobStatus::Waiting, 0)
            });
        }
        self.slip.released = Some(Released { by, payload: None });
        let mut decision = self.hold(reason, after_ms);
        if let Next::Hold(hold) = &mut decision.next {
            hold.signal = signal;
        }
        decision
    }

    /// The wait was in vain.
    pub(in crate::decide) fn not_signalled(mut self) -> Decision {
        let error = self.in_vain();
        let Some(wait) = self.definition.step(&self.slip.step).and_then(|step| step.wait()) else {
            return self.failed_for_good(error, 1, Effect::RuledOut);
        };
        let from = match &wait.on_timeout {
            OnTimeout::Fail => return self.failed_for_good(error, 1, Effect::RuledOut),
            OnTimeout::Continue => self.index_of_step().map(|index| index + 1),
            OnTimeout::Step(id) => self.definition.steps().iter().position(|step| step.id == *id),
        };
        let failure = self.failure_of_step(&error, 1);
        self.tell(JobEvent {
            data: Some(failure.to_json()),
            ..self.step_event(EventKind::StepSkipped, JobStatus::Running, 1)
        });
        self.note_visit();
        self.forward(from.unwrap_or(usize::MAX))
    }

    fn in_vain(&self) -> StepError {
        let wait = self.definition.step(&self.slip.step).and_then(|step| step.wait());
        let signal = wait.map_or("", |wait| wait.signal.as_str());
        let message = format!("no signal `{signal}` came in time");
        StepError { code: code::TIMED_OUT.to_owned(), message, status: None }
    }

    /// The operator who has said how the step ended, or the person whose signal released the token, if the step asks
    /// for a decision.
    pub(super) fn decided_by(&self) -> Option<String> {
        if let Some(verdict) = Verdict::of(&self.slip) {
            return Some(verdict.by);
        }
        self.definition.step(&self.slip.step)?.wait()?.approve.as_ref()?;
        let released = self.slip.released.as_ref().filter(|released| released.by == ReleasedBy::Signal)?;
        released.payload.as_ref()?.get("by")?.as_str().map(str::to_owned)
    }

    /// The number of the next visit to a step.
    pub(super) fn next_visit(&self, step: &str) -> u32 {
        let done = self.slip.done.iter().filter(|done| done.step == step).map(|done| done.visit);
        let noted = self.slip.visits.iter().filter(|(id, _)| id == step).map(|(_, visits)| *visits);
        done.chain(noted).max().unwrap_or(0).saturating_add(1)
    }

    /// Notes this visit, which no entry of what was done tells of.
    fn note_visit(&mut self) {
        let (step, visit) = (self.slip.step.clone(), self.slip.visit);
        self.slip.visits.retain(|(id, _)| *id != step);
        self.slip.visits.push((step, visit));
    }
}

pub(super) fn too_many_visits(step: &str) -> StepError {
    let message = format!("the job has come to `{step}` too often");
    StepError { code: code::TOO_MANY_VISITS.to_owned(), message, status: None }
}
