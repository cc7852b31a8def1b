//! Calls that have their effect after everybody has given them up.
//!
//! Against a service that remembers what it did, and not what it was asked to undo in vain, a promise holds only for
//! calls that were begun in time: a worker begins none once it has lost the slip (its proof of membership).

use flow::decide::{Prepared, prepare};
use flow::slip::Phase;

use crate::completions::env;
use crate::service::Memory;
use crate::world::{Task, World};

impl World {
    /// False: the slip is another worker's, and this one finds that out before it calls.
    pub(crate) fn may_begin(&self, task: &Task) -> bool {
        let is_owner = match task.apart {
            None => self.partitions[task.partition].epoch == task.epoch,
            Some(rest) => self.holds.contains_key(&rest),
        };
        is_owner || self.service.memory != Memory::OfDeeds
    }

    /// The slips of these tasks are about to be other workers', while their calls may be on the way.
    pub(crate) fn leave_on_the_way(&mut self, of: impl Fn(&Task) -> bool) {
        if self.service.memory != Memory::OfDeeds {
            return;
        }
        let lost: Vec<usize> =
            (0..self.tasks.len()).filter(|at| of(&self.tasks[*at]) && self.may_begin(&self.tasks[*at])).collect();
        for at in lost {
            let task = &self.tasks[at];
            if task.ready.is_some() || task.slip.phase == Phase::Undo || !self.chance.percent(50) {
                continue;
            }
            if let Prepared::Native(call) = prepare(&self.definition, &task.slip, &env(), self.now_ms) {
                self.ledger.called(&task.slip, &call.idempotency_key);
                self.service.send_late(&mut self.chance, &call, self.now_ms);
            }
        }
    }
}
