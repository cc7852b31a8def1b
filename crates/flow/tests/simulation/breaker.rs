//! Breakers: an attempt is not made now, the token rests without an end of its own, and is let pass later, sometimes as
//! the probe.

use flow::decide::{Busy, Prepared, prepare, wait_for_downstream};
use flow::slip::{HoldReason, Pass, Released, ReleasedBy, Slip};

use crate::completions::env;
use crate::generate::QUEUES;
use crate::world::{PARTITIONS_PER_QUEUE, Rest, Task, World};

impl Task {
    pub(crate) const fn queue(&self) -> usize {
        self.partition / PARTITIONS_PER_QUEUE
    }
}

impl World {
    /// True if the downstream of the task's step is not to be called now: its token is laid to rest.
    pub(crate) fn is_held_back(&mut self, task: &mut Task) -> bool {
        let prepared = prepare(&self.definition, &task.slip, &env(), self.now_ms);
        let calls = matches!(prepared, Prepared::Native(_) | Prepared::Http(_));
        if !calls || self.is_calm() || task.slip.pass().is_some() || !self.chance.percent(5) {
            return false;
        }
        let limit = self.chance.percent(30);
        let (reason, after_ms) = if limit { (HoldReason::Limit, Some(700)) } else { (HoldReason::Breaker, None) };
        let busy = Busy { downstream: "service".to_owned(), reason, after_ms };
        let queue = QUEUES[task.queue()];
        task.ready = Some(wait_for_downstream(&self.definition, &task.slip, queue, &busy, self.now_ms));
        self.tally.held_back += 1;
        true
    }

    /// The breaker lets some of those pass that wait for it.
    pub(crate) fn let_pass(&mut self) {
        let waiting = self.holds.iter().filter(|(_, (hold, _))| hold.reason == HoldReason::Breaker);
        let waiting: Vec<Rest> = waiting.map(|(rest, _)| *rest).collect();
        for rest in waiting {
            if self.chance.percent(30)
                && let Some((hold, _)) = self.holds.remove(&rest)
            {
                let pass = Pass { epoch: 1, is_probe: self.chance.percent(50) };
                self.tally.probes += u64::from(pass.is_probe);
                let released = Some(Released { by: ReleasedBy::Breaker, payload: Some(pass.to_json()) });
                self.send(Slip { released, ..hold.slip }, &hold.queue);
            }
        }
    }
}
