//! A cancel at the step that it meets: no further attempt begins, and a call under way may be broken off.

use flow::decide::{HttpAnswer, Outcome, classify, is_cancellable, is_cancelled};
use flow::definition::Definition;
use flow::slip::Slip;

use crate::cancels::CancelRequest;
use crate::run_step::Runner;

impl Runner {
    /// True if no further attempt is to be made for this slip.
    pub(crate) fn is_cancelled(&self, slip: &Slip) -> bool {
        is_cancelled(slip, self.cancels.is_wanted(slip.job))
    }

    /// The news of a cancel, for a native step.
    pub(crate) fn cancel_request(&self, slip: &Slip) -> CancelRequest {
        if is_cancellable(slip) { self.cancels.request(slip.job) } else { CancelRequest::default() }
    }

    /// Makes a call. If its job is cancelled meanwhile, and its step says so, the call is broken off: none.
    pub(crate) async fn unless_cancelled<T>(
        &self,
        definition: &Definition,
        slip: &Slip,
        call: impl Future<Output = T>,
    ) -> Option<T> {
        let aborts = definition.step(&slip.step).is_some_and(|step| step.aborts_on_cancel());
        if !aborts || !is_cancellable(slip) {
            return Some(call.await);
        }
        self.cancels.watch(slip.job).unless_cancelled(call).await
    }

    /// The outcome of a call that was broken off.
    pub(crate) fn aborted(&self, definition: &Definition, slip: &Slip) -> Outcome {
        classify(definition, slip, HttpAnswer::Aborted, self.clock.now_ms())
    }
}
