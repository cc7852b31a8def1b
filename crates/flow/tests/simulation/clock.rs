//! Time passes: holds become due, and what was late arrives.

use crate::world::World;

impl World {
    pub(crate) fn pass_time(&mut self) {
        self.deliver_callbacks();
        self.release_cancelled();
        self.let_pass();
        let step_ms = [1, 50, 2_000, 10_000, 60_000][self.chance.below(5)];
        self.now_ms += step_ms;
        let due = self.holds.iter().filter(|(_, (_, due_ms))| due_ms.is_some_and(|due_ms| due_ms <= self.now_ms));
        let due: Vec<_> = due.map(|(identity, _)| *identity).collect();
        for identity in due {
            // The orchestrator may be late.
            if self.chance.percent(70)
                && let Some((hold, _)) = self.holds.remove(&identity)
            {
                self.tally.holds_released += 1;
                self.send(hold.slip, &hold.queue);
            }
        }
    }
}
