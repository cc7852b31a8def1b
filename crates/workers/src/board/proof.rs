//! A transaction without results: the broker refuses its positions to a worker that has lost its partitions.

use super::Board;
use crate::work::Batch;

impl Board {
    /// The present positions of all partitions; none while a transaction runs, or a revocation bars them.
    pub(crate) fn take_proof(&mut self) -> Option<Batch> {
        if self.running || self.bars > 0 {
            return None;
        }
        self.running = true;
        let partitions = self.partitions.values();
        let positions = partitions.map(|partition| (partition.place.clone(), partition.ledger.commit_position()));
        Some(Batch { results: Vec::new(), positions: positions.collect() })
    }
}
