//! The way back: one step after the other is undone.

use super::{
    Decision, EventKind, HoldReason, JobEvent, JobStatus, Next, NextVisit, Phase, Retry, StepError, Token, Verdict,
    code,
};
use crate::slip::Failure;

impl Token<'_> {
    /// The step's compensation succeeded, or an operator says that it was undone by hand.
    pub(in crate::decide) fn undone(mut self) -> Decision {
        let by_hand = Verdict::of(&self.slip);
        let attempts = if by_hand.is_some() { self.slip.attempt } else { self.attempts() };
        let event = self.step_event(EventKind::StepCompensated, JobStatus::Compensating, attempts);
        self.tell(match by_hand {
            Some(verdict) => verdict.told_by(event),
            None => event,
        });
        self.note_undone();
        self.back()
    }

    /// There was nothing to undo. If the outcome of the step is unknown, its call may still be on its way to the other
    /// side, and have its effect after this undo: the step is undone once more, when the longest time of a call is
    /// over.
    pub(in crate::decide) fn nothing_to_undo(mut self, status: Option<u16>) -> Decision {
        let Some(settle_ms) = self.settle_ms() else { return self.undone() };
        let message = "there was nothing to undo; the step's outcome is unknown, so it is undone once more".to_owned();
        let error = StepError { code: code::NOTHING_TO_UNDO.to_owned(), message, status };
        let failure = self.failure_of_step(&error, self.attempts());
        self.tell(JobEvent {
            data: Some(failure.to_json()),
            next_attempt_after_ms: Some(settle_ms),
            ..self.step_event(EventKind::StepRetrying, JobStatus::Compensating, self.attempts())
        });
        self.note_undone();
        self.slip.attempt = 0;
        self.hold(HoldReason::Backoff, Some(settle_ms))
    }

    /// The time after which the step is undone once more; none where it is not.
    fn settle_ms(&self) -> Option<u64> {
        let (step, visit) = (&self.slip.step, self.slip.visit);
        let mut of_visit = self.slip.done.iter().filter(|done| done.step == *step && done.visit == visit);
        let is_unknown = of_visit.any(|done| done.uncertain && !done.undone);
        let settle_ms = self.definition.step(&self.slip.step)?.settle_ms();
        (is_unknown && settle_ms > 0).then_some(settle_ms)
    }

    fn note_undone(&mut self) {
        let (step, visit) = (self.slip.step.clone(), self.slip.visit);
        for done in self.slip.done.iter_mut().filter(|done| done.step == step && done.visit == visit) {
            done.undone = true;
        }
    }

    pub(in crate::decide) fn undo_failed(
        self,
        error: StepError,
        retryable: bool,
        retry_after_ms: Option<u64>,
    ) -> Decision {
        let step = self.definition.step(&self.slip.step);
        let policy = step.and_then(|step| step.retry(Phase::Undo)).unwrap_or(Retry::UNDO_DEFAULT);
        if retryable && (self.is_probe || self.attempts() < policy.attempts) {
            return self.retry(&policy, &error, retry_after_ms);
        }
        let failure = self.failure_of_step(&error, self.attempts());
        self.park(&failure, NextVisit::Same)
    }

    /// The decision to compensate. It is committed, as a slip or as the job's end, before anything is undone.
    pub(super) fn turn_back(mut self, failure: Failure) -> Decision {
        let data = failure.to_json();
        self.slip.failure = Some(failure);
        self.slip.phase = Phase::Undo;
        if self.next_to_undo().is_some() {
            self.tell_of_job(EventKind::JobCompensating, JobStatus::Compensating, Some(data));
        }
        self.back()
    }

    /// Sends the token to the last step that is still to be undone; without one, the job ends.
    fn back(mut self) -> Decision {
        if let Some((step, visit, queue)) = self.next_to_undo() {
            self.come_to(&step, visit);
            return self.send(&queue);
        }
        let failure = self.slip.failure.as_ref();
        let data = failure.map(Failure::to_json);
        if failure.is_some_and(|failure| failure.code == code::CANCELLED) {
            self.tell_of_job(EventKind::JobCancelled, JobStatus::Cancelled, data);
        } else {
            self.tell_of_job(EventKind::JobFailed, JobStatus::Failed, data);
        }
        Decision { next: Next::End, events: self.events }
    }

    fn next_to_undo(&self) -> Option<(String, u32, String)> {
        let open = self.slip.done.iter().rev().filter(|done| !done.undone);
        open.filter_map(|done| {
            let step = self.definition.step(&done.step).filter(|step| step.is_undoable())?;
            Some((done.step.clone(), done.visit, step.queue.clone()))
        })
        .next()
    }
}
