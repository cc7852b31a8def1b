//! Further attempts, and those for which the time is too short.

use super::{
    Decision, Effect, EventKind, HoldReason, IN_PROCESS_BELOW_MS, JobEvent, JobStatus, Next, Phase, Retry, StepError,
    Token, code, delay_ms,
};
use crate::decide::time_left::{deadline_error, time_left_ms};
use crate::definition::limit;

impl Token<'_> {
    /// Another attempt: soon and in this process, or later and by a hold. A probe is no attempt of the step: the token
    /// is where it was before, in front of the breaker. One that could not be made before the deadline is not waited
    /// for: the step has failed.
    pub(super) fn retry(mut self, policy: &Retry, error: &StepError, retry_after_ms: Option<u64>) -> Decision {
        if self.is_probe {
            return self.unchanged();
        }
        let attempts = self.attempts();
        // What a callback said is committed before another call is made: a slip that is delivered again has made none.
        let is_committed = self.slip.released.take().is_some();
        let mut wait_ms = delay_ms(policy, attempts, &self.slip.idempotency_key());
        wait_ms = wait_ms.max(retry_after_ms.unwrap_or(0)).min(limit::DEADLINE_MS_MAX);
        if time_left_ms(u64::MAX, &self.slip, self.now_ms) <= wait_ms {
            return self.too_late_for_another(error, !is_committed);
        }
        if wait_ms < IN_PROCESS_BELOW_MS && !is_committed {
            self.slip.attempt = attempts;
            return Decision { next: Next::RetryNow { slip: self.slip, delay_ms: wait_ms }, events: Vec::new() };
        }
        let status = match self.slip.phase {
            Phase::Forward => JobStatus::Waiting,
            Phase::Undo => JobStatus::Compensating,
        };
        let failure = self.failure_of_step(error, attempts);
        self.tell(JobEvent {
            data: Some(failure.to_json()),
            next_attempt_after_ms: Some(wait_ms),
            ..self.step_event(EventKind::StepRetrying, status, attempts)
        });
        self.slip.attempt = attempts;
        let may_be_called_back = self.may_end_early();
        let mut decision = self.hold(HoldReason::Backoff, Some(wait_ms));
        Self::end_early_by_callback(&mut decision, may_be_called_back);
        decision
    }

    /// The next attempt could not be made before the deadline of the step, or of its job, whichever comes first. A
    /// callback may come until then, if `is_open`; otherwise the step has failed.
    pub(super) fn too_late_for_another(mut self, error: &StepError, is_open: bool) -> Decision {
        if is_open && self.may_end_early() {
            return self.wait_for_late_callback(error);
        }
        let attempts = self.attempts();
        let job_left_ms = self.slip.deadline_ms.map(|deadline_ms| deadline_ms.saturating_sub(self.now_ms));
        let is_of_step = match (self.slip.step_left_ms, job_left_ms) {
            (Some(step_left_ms), Some(job_left_ms)) => step_left_ms < job_left_ms,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_of_step {
            let message = format!("the step's deadline comes before its next attempt; {}", error.message);
            let error = StepError { code: code::DEADLINE_EXCEEDED.to_owned(), message, status: None };
            return self.failed_for_good(error, attempts, Effect::Unsent);
        }
        let failure = self.failure_of_step(error, attempts);
        self.tell_of_failed_step(&failure, attempts);
        self.failed_for_good(deadline_error(), attempts, Effect::Unsent)
    }
}
