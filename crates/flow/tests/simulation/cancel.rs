//! Cancels: asked for at any moment, heeded by workers that know of them, and by the keeper of holds.

use flow::decide::{broken_off, is_cancellable, is_cancelled};
use flow::id::JobId;
use flow::slip::{HoldReason, Phase, Released, ReleasedBy, Slip};

use crate::service::Told;
use crate::world::{Rest, Task, World};

impl World {
    /// Somebody wants the job cancelled.
    pub(crate) fn cancel(&mut self, job: JobId) {
        let is_new = !self.ledger.has_ended(job) && self.wishes.insert(job);
        self.tally.cancels += u64::from(is_new);
    }

    /// True if the worker is not to make an attempt. Not every worker knows of every cancel already; but a slip that a
    /// cancel has sent on says so.
    pub(crate) fn heeds_cancel(&mut self, slip: &Slip) -> bool {
        let knows = self.wishes.contains(&slip.job) && self.chance.percent(80);
        is_cancelled(slip, knows)
    }

    /// True if the call that was just made is broken off, at any moment: whatever came of it, the worker does not hear.
    pub(crate) fn is_broken_off(&mut self, task: &mut Task) -> bool {
        if !self.is_calm() && self.chance.percent(2) {
            self.cancel(task.slip.job);
        }
        let aborts = self.definition.step(&task.slip.step).is_some_and(|step| step.aborts_on_cancel());
        let breaks = aborts && task.slip.phase == Phase::Forward && self.wishes.contains(&task.slip.job);
        if breaks {
            *task.told.last_mut().expect("it was told of the call") = Told::Unknown;
            task.slip = broken_off(task.slip.clone());
            self.tally.broken_off += 1;
        }
        breaks
    }

    /// The keeper of holds sends on what rests and is to be cancelled, unless it is about to go on by itself.
    pub(crate) fn release_cancelled(&mut self) {
        let rests = |reason: HoldReason| !matches!(reason, HoldReason::Running | HoldReason::Turn | HoldReason::Room);
        let of_wish = |rest: &Rest| self.wishes.contains(&rest.0);
        let held = self.holds.iter().filter(|(rest, (hold, _))| of_wish(rest) && rests(hold.reason));
        let due: Vec<Rest> = held.filter(|(_, (hold, _))| is_cancellable(&hold.slip)).map(|(rest, _)| *rest).collect();
        for rest in due {
            let (hold, _) = self.holds.remove(&rest).expect("it was just there");
            self.tally.released_by_cancel += 1;
            let released = Some(Released { by: ReleasedBy::Cancel, payload: None });
            self.send(Slip { released, ..hold.slip }, &hold.queue);
        }
    }
}
