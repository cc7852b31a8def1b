//! Held lanes of all partitions, read from `meanwhile.lanes`; and the records there that declare this worker lost.

use std::collections::HashMap;
use std::sync::Arc;

use bus::{Inbound, TopicPartition};
use events::lane::{HeldLane, LaneNews, read};
use parking_lot::RwLock;
use service_kit::tasks::spawn_detached;

use crate::followed::{Ask, Following, Learn};
use crate::long_calls::LongCalls;

/// The held lanes by record key. Sessions read them at each assignment.
#[derive(Debug)]
pub(crate) struct LaneTable {
    held: RwLock<HashMap<Vec<u8>, HeldLane>>,
    ask: Ask,
    /// Told when this worker is declared lost.
    pub(crate) long_calls: Arc<LongCalls>,
}

impl LaneTable {
    /// Starts empty. The second value is for [`crate::followed::follow`].
    pub(crate) fn new(long_calls: Arc<LongCalls>) -> (Arc<Self>, Following) {
        let (ask, following, _) = Following::new();
        (Arc::new(Self { held: RwLock::default(), ask, long_calls }), following)
    }

    /// Waits until everything that was committed before is known.
    pub(crate) async fn to_end(&self) {
        self.ask.to_end().await;
    }

    /// The lanes of one partition.
    pub(crate) fn of(&self, place: &TopicPartition) -> Vec<HeldLane> {
        let held = self.held.read();
        let here = |lane: &&HeldLane| lane.topic == place.topic && lane.partition == place.partition;
        held.values().filter(here).cloned().collect()
    }

    fn take(&self, held: &mut HashMap<Vec<u8>, HeldLane>, record: &Inbound) {
        match read(record) {
            Ok(Some(LaneNews::Held(lane))) => {
                held.insert(lane.record_key(), lane);
            }
            Ok(Some(LaneNews::Free(key))) => {
                held.remove(&key);
            }
            Ok(Some(LaneNews::Lost(worker))) => {
                self.long_calls.lose(&worker);
                if self.long_calls.is_ours(&worker) {
                    // The record concerns this worker alone, which has read it now.
                    spawn_detached(Arc::clone(&self.long_calls).forget_loss(worker));
                }
            }
            Ok(None) => {}
            Err(error) => {
                metrics::counter!("meanwhile_unreadable_skipped_total", "role" => "workers").increment(1);
                tracing::warn!(offset = record.offset, %error, "a lane's record cannot be read; passed over");
            }
        }
    }
}

impl Learn for LaneTable {
    async fn load(&self, records: &[Inbound]) {
        let mut held = HashMap::new();
        records.iter().for_each(|record| self.take(&mut held, record));
        *self.held.write() = held;
    }

    async fn learn(&self, records: &[Inbound]) {
        let mut held = self.held.write();
        records.iter().for_each(|record| self.take(&mut held, record));
    }
}
