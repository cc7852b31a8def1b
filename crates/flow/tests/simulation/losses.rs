//! Workers that die, and partitions that go to another one.

use crate::world::{WORKERS, World};

impl World {
    pub(crate) fn kill_any(&mut self) {
        let worker = self.chance.below(WORKERS);
        self.kill(worker);
    }

    pub(crate) fn kill(&mut self, worker: usize) {
        self.tally.kills += 1;
        self.leave_on_the_way(|task| task.worker == worker);
        self.tasks.retain(|task| task.worker != worker);
        for index in 0..self.partitions.len() {
            if self.partitions[index].owner == worker {
                self.reassign(index);
            }
        }
    }

    pub(crate) fn reassign_any(&mut self) {
        let index = self.chance.below(self.partitions.len());
        self.reassign(index);
    }

    /// The tasks of the old owner live on, as a zombie's.
    fn reassign(&mut self, index: usize) {
        self.tally.reassignments += 1;
        self.leave_on_the_way(|task| task.partition == index && task.apart.is_none());
        let owner = self.chance.below(WORKERS);
        let partition = &mut self.partitions[index];
        partition.owner = owner;
        partition.epoch += 1;
        partition.end_at_assignment = partition.log.len();
    }
}
