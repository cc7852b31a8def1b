//! Signals of callers, and the holds that they meet.

use flow::id::JobId;
use flow::slip::{Released, ReleasedBy, Slip};
use serde_json::json;

use crate::generate::SIGNALS;
use crate::world::World;

impl World {
    /// Somebody sends a job a signal, whether a step waits for it or not.
    pub(crate) fn send_signal(&mut self) {
        let job = self.jobs[self.chance.below(self.jobs.len())];
        let name = SIGNALS[self.chance.below(SIGNALS.len())];
        *self.signals.entry((job, name)).or_default() += 1;
        self.tally.signals += 1;
        self.meet_signal(job);
    }

    /// A hold that waits for a signal that is there goes on with it.
    pub(crate) fn meet_signal(&mut self, job: JobId) {
        let waiting = self.holds.iter().find_map(|(rest, (hold, _))| {
            let signal = SIGNALS.iter().find(|signal| hold.signal.as_deref() == Some(**signal))?;
            let is_there = self.signals.get(&(job, signal)).is_some_and(|count| *count > 0);
            (rest.0 == job && is_there).then_some((*rest, *signal))
        });
        let Some((rest, signal)) = waiting else { return };
        let Some((hold, _)) = self.holds.remove(&rest) else { return };
        self.signals.entry((job, signal)).and_modify(|count| *count -= 1);
        self.tally.signalled += 1;
        let released = Released { by: ReleasedBy::Signal, payload: Some(json!({ "signal": signal })) };
        self.send(Slip { released: Some(released), ..hold.slip }, &hold.queue);
    }
}
