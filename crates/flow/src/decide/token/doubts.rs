//! Steps that must not be repeated while they may have been done: their doubts, the answers of `verify`, and deadlines.

use super::{
    Decision, Effect, EventKind, HoldReason, IN_PROCESS_BELOW_MS, JobEvent, JobStatus, Next, NextVisit, Retry,
    StepError, Token, code, delay_ms, doubt,
};
use crate::decide::doubt::Doubt;
use crate::decide::time_left::{deadline_error, is_past, step_deadline_error, time_left_ms};
use crate::definition::{Step, limit};
use crate::slip::{Failure, Phase};

impl Token<'_> {
    /// The error of a step whose time is over, or whose job's is: what came first, then its own.
    pub(super) fn expired(&self, error: &StepError, retryable: bool) -> Option<StepError> {
        if error.code == code::DEADLINE_EXCEEDED {
            return Some(error.clone());
        }
        if retryable && is_past(self.slip.deadline_ms, self.now_ms) {
            return Some(deadline_error());
        }
        (retryable && self.slip.is_step_over()).then(step_deadline_error)
    }

    /// The step may have been done, and must not be repeated while that is so. `verify` is asked once the call cannot
    /// be under way any more; without it an operator is.
    pub(super) fn doubted(mut self, error: &StepError, retryable: bool) -> Decision {
        // A worker that is gone took its attempt with it.
        let is_lost = error.code == code::OUTCOME_UNKNOWN;
        let attempts = if is_lost { self.slip.attempt } else { self.attempts() };
        let failure = self.failure_of_step(error, attempts);
        let step = self.definition.step(&self.slip.step);
        if let Some(error) = self.expired(error, retryable)
            && step.is_some_and(Step::is_undoable)
        {
            return self.failed_for_good(error, attempts, Effect::Unsent);
        }
        let Some(step) = step.filter(|step| step.verify().is_some() && error.code != code::DEADLINE_EXCEEDED) else {
            self.tell_of_failed_step(&failure, attempts);
            return self.park(&failure, NextVisit::Same);
        };
        // A wait for its end in vain is part of the time within which the call may have its effect.
        let settle_ms = step.settle_ms().saturating_sub(self.waited_ms());
        self.slip.attempt = attempts;
        self.slip.released = None;
        self.forget_work(false);
        let settled = time_left_ms(settle_ms, &self.slip, self.now_ms) == settle_ms;
        let next = match settled {
            true => "`verify` is asked whether it was done",
            false => "its deadline comes before `verify` can be asked whether it was done",
        };
        let told = Failure { message: format!("{}; {next}", failure.message), ..failure.clone() };
        Doubt { failure, retryable, asked: 0, settled }.note(&mut self.slip);
        // An operator cannot cut this rest short.
        self.ask_later(&told, settle_ms, HoldReason::Timer)
    }

    /// It was not done: it may be called again, once that is committed. The hold that a long question leaves behind
    /// says that it is being asked about, and must not stand for a call.
    pub(in crate::decide) fn not_done(mut self) -> Decision {
        let Some(doubt) = doubt::doubt(self.definition, &self.slip) else { return self.unchanged() };
        let step = self.definition.step(&self.slip.step);
        let policy = step.and_then(|step| step.retry(Phase::Forward)).unwrap_or(Retry::STEP_DEFAULT);
        self.slip = doubt::cleared(self.slip);
        self.begin_round();
        let Failure { code, message, status, attempts, .. } = doubt.failure;
        let error = StepError { code, message, status };
        if let Some(error) = self.expired(&error, doubt.retryable) {
            return self.failed_for_good(error, attempts, Effect::RuledOut);
        }
        if doubt.retryable && self.slip.attempt < policy.attempts {
            let queue = step.map_or(limit::QUEUE_DEFAULT, |step| step.queue.as_str());
            return self.send(queue);
        }
        self.failed_for_good(error, attempts, Effect::RuledOut)
    }

    /// `verify` did not tell. It is asked again, or an operator is.
    pub(super) fn verify_failed(
        mut self,
        doubt: Doubt,
        error: &StepError,
        retryable: bool,
        retry_after_ms: Option<u64>,
    ) -> Decision {
        let step = self.definition.step(&self.slip.step);
        if let Some(error) = self.expired(error, retryable)
            && step.is_some_and(Step::is_undoable)
        {
            let attempts = self.slip.attempt;
            return self.failed_for_good(error, attempts, Effect::Unsent);
        }
        let policy = step.and_then(Step::verify).map_or(Retry::UNDO_DEFAULT, |verify| verify.retry);
        let asked = doubt.asked.saturating_add(1);
        let failure = self.failure_of_step(error, self.slip.attempt);
        if !retryable || asked >= policy.attempts || self.expired(error, retryable).is_some() {
            self.tell_of_failed_step(&failure, self.slip.attempt);
            return self.park(&failure, NextVisit::Same);
        }
        let key = format!("{}:verify", self.slip.idempotency_key());
        let wait_ms = delay_ms(&policy, asked, &key).max(retry_after_ms.unwrap_or(0));
        Doubt { asked, ..doubt }.note(&mut self.slip);
        self.ask_later(&failure, wait_ms, HoldReason::Backoff)
    }

    /// The slip says already that it asks.
    fn ask_later(mut self, failure: &Failure, wait_ms: u64, reason: HoldReason) -> Decision {
        let wait_ms = time_left_ms(wait_ms, &self.slip, self.now_ms);
        if wait_ms < IN_PROCESS_BELOW_MS {
            return Decision { next: Next::RetryNow { slip: self.slip, delay_ms: wait_ms }, events: Vec::new() };
        }
        self.tell(JobEvent {
            data: Some(failure.to_json()),
            next_attempt_after_ms: Some(wait_ms),
            ..self.step_event(EventKind::StepRetrying, JobStatus::Waiting, self.slip.attempt)
        });
        let may_be_called_back = self.may_end_early();
        let mut decision = self.hold(reason, Some(wait_ms));
        Self::end_early_by_callback(&mut decision, may_be_called_back);
        decision
    }
}
