//! The mark of a step that must not be repeated: its token leaves the partition before the call is made. The hold says
//! that the call may have been made, and is committed then; whoever gets a slip without it may make the call.
//!
//! Nothing else pays for it: other steps leave only where they take long.

use std::sync::Arc;

use events::trace::Trace;
use flow::decide::{Decision, Effect, Next, Outcome, Prepared, StepError, code, marks_first, prepare};
use flow::definition::Definition;
use flow::slip::Slip;
use service_kit::stop_at;

use crate::attempt_log::Attempted;
use crate::not_now::NotNow;
use crate::run_step::Runner;
use crate::task::{Apart, Task};
use crate::tenure::Belongs;

/// Whether a call may be made.
#[derive(Debug)]
enum Mark {
    /// It may: the mark is committed, or none is needed.
    Stands,
    /// It may not: there can be no mark.
    Refused(Outcome),
    /// It may not here: see [`NotNow::Doubtful`].
    Doubtful(Box<Decision>),
}

impl Runner {
    /// Makes one attempt, unless somebody wants the job cancelled or its mark does not stand.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        definition: &Definition,
        slip: &Slip,
        trace: &Trace,
        task: &Task,
    ) -> Result<Attempted, NotNow> {
        if self.is_cancelled(slip) {
            return Ok(Outcome::Cancelled.into());
        }
        match self.mark(definition, slip, trace, task).await {
            Mark::Stands => self.attempt_or_leave(definition, slip, trace, task).await,
            Mark::Refused(outcome) => Ok(outcome.into()),
            Mark::Doubtful(unbegun) => Err(NotNow::Doubtful(unbegun)),
        }
    }

    /// Commits that the call of this slip is being begun, where it must not be made otherwise.
    async fn mark(self: &Arc<Self>, definition: &Definition, slip: &Slip, trace: &Trace, task: &Task) -> Mark {
        if task.apart().is_some() || !marks_first(definition, slip) {
            return Mark::Stands;
        }
        match prepare(definition, slip, &self.env, self.clock.now_ms()) {
            Prepared::Http(_) | Prepared::Native(_) | Prepared::Simulated(_) => {}
            // Nothing is called.
            Prepared::Outcome(_) | Prepared::Missing(_) => return Mark::Stands,
        }
        self.leave(task, definition, slip, trace).await;
        match (task.work.tenure.settle().await, task.apart()) {
            (Belongs::Apart { doubtful: false }, Some(apart)) => {
                stop_at("workers.after-mark");
                if self.long_calls.was_stopped_since(&apart.call) {
                    // The hold may be another worker's by now, and this one has not made the call.
                    return Mark::Doubtful(Box::new(self.unbegun(slip, apart, task)));
                }
                Mark::Stands
            }
            (Belongs::Apart { doubtful: true }, Some(apart)) => {
                Mark::Doubtful(Box::new(self.unbegun(slip, apart, task)))
            }
            (Belongs::Here, _) => Mark::Refused(unmarkable()),
            // The step is another worker's: `Task::cut` ends it.
            (Belongs::Apart { .. } | Belongs::Nowhere, _) => std::future::pending().await,
        }
    }

    /// The slip without the mark, in place of the hold that has it.
    fn unbegun(&self, slip: &Slip, apart: &Apart, task: &Task) -> Decision {
        let slip = Slip { hop: apart.token.hop.saturating_add(1), ..slip.clone() };
        let queue = self.queue_of(&task.work).to_owned();
        Decision { next: Next::Step { slip, queue }, events: Vec::new() }
    }
}

/// The only reason for which a hold is not written: it would be too large.
fn unmarkable() -> Outcome {
    let message = "the slip is too large to be marked as begun, so the step was not called".to_owned();
    let error = StepError { code: code::TOO_LARGE.to_owned(), message, status: None };
    Outcome::Failed { error, retryable: false, effect: Effect::Unsent, retry_after_ms: None }
}
