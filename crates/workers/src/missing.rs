//! Slips that need what is not here: a flow, a native step, a setting, the topic of a queue, a later version. Each
//! rests and looks again, for as long as it takes; that is never its job's fault.

use bus::Record;
use events::dead_letter::{Class, Refused};
use events::header;
use events::trace::Trace;
use flow::decide::{Decision, Missing, MissingKind, Next, is_expired, rest_unread_ms, rest_until_there, steps_total};
use flow::definition::Definition;
use flow::slip::Slip;

use crate::run_step::Runner;
use crate::task::Task;
use crate::telemetry;

impl Runner {
    /// The flow that a slip names.
    pub(crate) async fn definition(&self, slip: &Slip) -> Result<Definition, Missing> {
        let definition = self.flows.definition(&slip.flow, &slip.version).await;
        definition.map_err(|what| Missing { kind: MissingKind::Flow, what })
    }

    /// The records of a slip that rests, and comes back to its queue to look again.
    pub(crate) async fn rest_until_there(
        &self,
        slip: &Slip,
        steps_total: u32,
        missing: &Missing,
        trace: &Trace,
        task: &Task,
    ) -> Result<Vec<Record>, Refused> {
        let rest = self.look_again(slip, self.queue_of(&task.work), steps_total, missing);
        self.rest_records(rest, trace, task).await
    }

    /// The records of a decision that is no step's outcome.
    pub(crate) async fn rest_records(
        &self,
        decision: Decision,
        trace: &Trace,
        task: &Task,
    ) -> Result<Vec<Record>, Refused> {
        let records = self.records_that_fit(decision, trace, task).await;
        records.map_err(|misfit| Refused::new(Class::TooLarge, misfit))
    }

    /// The queue of the next step has no topic: the slip rests, and comes back to the queue of this one.
    pub(crate) fn rest_until_queue_is_there(&self, decision: Decision, task: &Task) -> Decision {
        let Decision { next, mut events } = decision;
        let Next::Step { slip, queue } = next else { return Decision { next, events } };
        let came = Slip { hop: slip.hop.saturating_sub(1), ..slip };
        let total = events.first().map_or(0, |event| event.steps_total);
        let mut rest = self.look_again(&came, self.queue_of(&task.work), total, &Missing::queue(&queue));
        for event in &mut rest.events {
            event.index = u32::try_from(events.len()).unwrap_or(u32::MAX);
        }
        events.append(&mut rest.events);
        Decision { next: rest.next, events }
    }

    /// The next move of a slip that came back to this queue, since that of its step had no topic.
    pub(crate) async fn sent_on(&self, definition: &Definition, slip: &Slip, task: &Task) -> Option<Decision> {
        let (here, queue) = (self.queue_of(&task.work), definition.queue_of(&slip.step)?);
        let is_over = self.is_cancelled(slip) || is_expired(slip, self.clock.now_ms());
        if slip.search.is_none() || queue == here || is_over {
            return None;
        }
        if !self.limits.has(&self.writer.topics.steps(queue)).await {
            return Some(self.look_again(slip, here, steps_total(definition), &Missing::queue(queue)));
        }
        let slip = Slip { hop: slip.hop.saturating_add(1), search: None, ..slip.clone() };
        Some(Decision { next: Next::Step { slip, queue: queue.to_owned() }, events: Vec::new() })
    }

    /// The time for which a slip of a later version rests, in milliseconds.
    pub(crate) fn newer_rests_ms(&self, task: &Task, what: &str) -> u64 {
        let record = &task.work.record;
        telemetry::newer(record, what);
        let job = record.header_text(header::JOB_ID).and_then(|job| job.parse().ok());
        let place = format!("{}/{}/{}", record.topic, record.partition, record.offset);
        rest_unread_ms(job, &place, self.clock.now_ms())
    }

    pub(crate) fn look_again(&self, slip: &Slip, queue: &str, steps_total: u32, missing: &Missing) -> Decision {
        let rest = rest_until_there(slip, queue, steps_total, missing, self.clock.now_ms());
        telemetry::missing(slip, missing, !rest.events.is_empty());
        rest
    }
}
