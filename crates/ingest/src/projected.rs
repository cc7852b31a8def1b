//! How far the orchestrator's projection is, asked only while it matters.

use std::collections::HashMap;

use parking_lot::Mutex;
use store::{Error, Pool};

/// The offset up to which each partition of the events is projected, as far as this process knows: it only rises.
#[derive(Default)]
pub(crate) struct Projected {
    next_offsets: Mutex<HashMap<i32, i64>>,
}

impl Projected {
    /// The partitions in which the projection has not come to its floor yet.
    pub(crate) async fn behind(&self, pool: &Pool, topic: &str, floors: &HashMap<i32, i64>) -> Result<Vec<i32>, Error> {
        if self.below(floors).is_empty() {
            return Ok(Vec::new());
        }
        let found = store::offsets::projected(pool, topic).await?;
        let mut known = self.next_offsets.lock();
        for (partition, next) in found {
            let known = known.entry(partition).or_default();
            *known = (*known).max(next);
        }
        drop(known);
        Ok(self.below(floors))
    }

    fn below(&self, floors: &HashMap<i32, i64>) -> Vec<i32> {
        let known = self.next_offsets.lock();
        let is_below = |(partition, floor): &(&i32, &i64)| known.get(*partition).copied().unwrap_or(0) < **floor;
        floors.iter().filter(is_below).map(|(partition, _)| *partition).collect()
    }
}
