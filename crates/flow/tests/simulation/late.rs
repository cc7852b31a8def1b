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
        is_owner || (self.service.memory != Memory::OfDeeds && !self.is_once_only(&task.slip))
    }

    /// The slips of these tasks are about to be other workers', while their calls may be on the way.
    pub(crate) fn leave_on_the_way(&mut self, of: impl Fn(&Task) -> bool) {
        let lost: Vec<usize> =
            (0..self.tasks.len()).filter(|at| of(&self.tasks[*at]) && self.may_begin(&self.tasks[*at])).collect();
        for at in lost {
            let task = &self.tasks[at];
            let (is_once_only, is_marked) = (self.is_once_only(&task.slip), task.apart.is_some());
            // Of what must not be repeated, only a marked call may be on its way.
            let may_be_late = if is_once_only { is_marked } else { self.service.memory == Memory::OfDeeds };
            if !may_be_late || task.ready.is_some() || task.slip.phase == Phase::Undo || !self.chance.percent(50) {
                continue;
            }
            if let Prepared::Native(call) = prepare(&self.definition, &task.slip, &env(), self.now_ms) {
                self.ledger.called(&task.slip, &call.idempotency_key);
                if is_once_only {
                    self.service.times.entry(call.idempotency_key.clone()).or_default();
                }
                self.service.send_late(&mut self.chance, &call, self.now_ms);
            }
        }
    }
}
