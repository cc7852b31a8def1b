//! From a decision to records that fit into their topics.

use bus::Record;
use events::dead_letter::{Class, Refused};
use events::trace::Trace;
use flow::decide::{Decision, Next, Outcome, advance};
use flow::definition::Definition;
use flow::slip::{Phase, Slip};
use service_kit::error_chain;

use crate::run_step::Runner;
use crate::task::Task;
use crate::telemetry;

/// A slip on its way forward leaves room for what the way back adds to it: the failure with its message, and the step
/// that failed. Otherwise the slip that undoes everything would not fit.
const UNDO_RESERVE_BYTES: usize = 4 * 1024;

impl Runner {
    /// A decision's records. What does not fit into a record is the step's failure.
    pub(crate) async fn encode(
        &self,
        definition: &Definition,
        slip: &Slip,
        decision: Decision,
        trace: &Trace,
        task: &Task,
    ) -> Result<Vec<Record>, Refused> {
        let misfit = match self.records_that_fit(decision, trace, task).await {
            Ok(records) => return Ok(records),
            Err(misfit) => misfit,
        };
        let failure = advance(definition, slip, Outcome::too_large(misfit), self.clock.now_ms());
        self.records_that_fit(failure, trace, task).await.map_err(|misfit| Refused::new(Class::TooLarge, misfit))
    }

    pub(crate) async fn records_that_fit(
        &self,
        mut decision: Decision,
        trace: &Trace,
        task: &Task,
    ) -> Result<Vec<Record>, String> {
        if let Next::Step { queue, .. } = &decision.next
            && !self.limits.has(&self.writer.topics.steps(queue)).await
        {
            decision = self.rest_until_queue_is_there(decision, task);
        }
        let mut records = self.writer.decision(&decision, trace).map_err(|error| error_chain(&error))?;
        let reserve_bytes = match &decision.next {
            Next::Step { slip, .. } if slip.phase == Phase::Forward => UNDO_RESERVE_BYTES,
            Next::Step { .. } | Next::RetryNow { .. } | Next::Hold(_) | Next::End => 0,
        };
        self.all_fit(&records, reserve_bytes).await?;
        if let Next::Hold(hold) = &decision.next {
            // The slip inside is to be sent on: a hold's topic takes more than a slip's.
            let slip = self.writer.slip(&hold.queue, &hold.slip, trace).map_err(|error| error_chain(&error))?;
            self.all_fit(&[slip], 0).await?;
        }
        if let Some(apart) = task.settle().await {
            let outcome = self.outcome_record(apart, records, trace);
            records = vec![outcome.map_err(|error| error_chain(&error))?];
            self.all_fit(&records, 0).await?;
        }
        telemetry::decision(&self.meters, &decision, trace);
        Ok(records)
    }

    async fn all_fit(&self, records: &[Record], reserve_bytes: usize) -> Result<(), String> {
        for record in records {
            if let Some(misfit) = self.limits.misfit(record, reserve_bytes).await {
                return Err(misfit);
            }
        }
        Ok(())
    }
}
