//! Steps with another way on: their job does not fail with them.

use super::{
    CarriedStep, Certainty, Completed, Decision, EventKind, Failure, JobEvent, JobStatus, Phase, Token, code,
    expression_error_of,
};
use crate::decide::StepError;
use crate::definition::Fallback;

impl Token<'_> {
    pub(super) fn has_fallback(&self) -> bool {
        let step = self.definition.step(&self.slip.step);
        self.slip.phase == Phase::Forward && step.is_some_and(|step| step.fallback.is_some())
    }

    /// The step is not to be called, and has another way on; none where it has not.
    pub(in crate::decide) fn held_back(self, downstream: &str) -> Option<Decision> {
        if !self.has_fallback() {
            return None;
        }
        let message = format!("the breaker of `{downstream}` is open");
        let error = StepError { code: code::BREAKER_OPEN.to_owned(), message, status: None };
        let attempts = self.slip.attempt;
        let failure = self.failure_of_step(&error, attempts);
        Some(self.fall_back(&failure, attempts))
    }

    /// The job goes on with a value in place of the step's output, or with another step. What the call may have done is
    /// remembered.
    pub(super) fn fall_back(mut self, failure: &Failure, attempts: u32) -> Decision {
        let definition = self.definition;
        let fallback = definition.step(&self.slip.step).and_then(|step| step.fallback.as_ref());
        let index = self.index_of_step().unwrap_or(usize::MAX);
        let (next, output) = match fallback {
            Some(Fallback::Value(value)) => match self.render(value) {
                Ok(output) => (index.saturating_add(1), Some(output)),
                Err(error) => {
                    let failure = self.failure_of_step(&expression_error_of("fallback", &error), attempts);
                    self.tell_of_failed_step(&failure, attempts);
                    if self.slip.attempt_uncertain {
                        self.push_done(None, Certainty::Uncertain);
                    }
                    return self.turn_back(failure);
                }
            },
            Some(Fallback::Step(id)) => {
                (definition.steps().iter().position(|step| step.id == *id).unwrap_or(usize::MAX), None)
            }
            None => (index.saturating_add(1), None),
        };
        self.tell(JobEvent {
            data: Some(failure.to_json()),
            ..self.step_event(EventKind::StepSkipped, JobStatus::Running, attempts)
        });
        let uncertain = self.slip.attempt_uncertain;
        let carried = CarriedStep { error_code: Some(failure.code.clone()), ..CarriedStep::default() };
        let (step, visit) = (self.slip.step.clone(), self.slip.visit);
        // Where nothing was done, there is nothing to undo.
        self.slip.done.push(Completed { step, visit, output, uncertain, undone: !uncertain, carried });
        self.forward(next)
    }
}
