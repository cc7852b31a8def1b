//! Lanes that long calls hold, as `meanwhile.lanes` has them (JSON, compacted), and how a lane is freed.
//!
//! A lane is the slips of one queue that share a record key: one of them runs at a time. While a long call holds a
//! lane, later slips of it rest as holds of reason `turn`. The worker that owns the partition writes what it knows of a
//! lane in the transaction that commits the slips' offsets, so that the partition's next owner goes on where it
//! stopped.

use flow::id::TokenId;
use serde::{Deserialize, Serialize};

use crate::error::DecodeError;
use crate::header;
use crate::record::{Inbound, Record};
use crate::topic::Topics;

/// A lane that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLane {
    /// The steps topic.
    pub topic: String,
    /// The partition of the lane's slips.
    pub partition: i32,
    /// The lane: the record key of its slips.
    pub lane: String,
    /// The token that holds it, as `<job>:<branch>:<hop>`.
    pub holder: String,
    /// How many slips were laid to rest behind the holder.
    pub turns: u32,
}

/// What a record of the topic says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneNews {
    /// The lane is held, by this token.
    Held(HeldLane),
    /// The lane with this record key on `meanwhile.lanes` is free.
    Free(Vec<u8>),
    /// This worker was silent for longer than its lease: its running calls were given to others.
    Lost(String),
}

/// What [`LaneNews::Lost`] has as its key before the worker.
const WORKER: &str = "worker/";

#[derive(Serialize, Deserialize)]
struct LostWire {
    lost_worker: String,
}

impl HeldLane {
    /// The key of the lane on `meanwhile.lanes`.
    pub fn record_key(&self) -> Vec<u8> {
        lane_key(&self.topic, &self.lane)
    }

    /// The record that says so.
    pub fn record(&self, topics: &Topics) -> Record {
        let value = serde_json::to_vec(self).expect("texts and numbers are JSON");
        Record { topic: topics.lanes(), key: Some(self.record_key()), value: Some(value), headers: Vec::new() }
    }

    /// The record that says that it is held no more: a tombstone.
    pub fn tombstone(&self, topics: &Topics) -> Record {
        Record { topic: topics.lanes(), key: Some(self.record_key()), value: None, headers: Vec::new() }
    }
}

/// `<steps topic>/<record key>`. A topic has no slash in its name.
fn lane_key(topic: &str, lane: &str) -> Vec<u8> {
    format!("{topic}/{lane}").into_bytes()
}

/// The record that tells a worker that it was given up.
pub fn lost_worker_record(topics: &Topics, worker: &str) -> Record {
    let wire = LostWire { lost_worker: worker.to_owned() };
    let value = serde_json::to_vec(&wire).expect("a text is JSON");
    Record { topic: topics.lanes(), key: Some(worker_key(worker)), value: Some(value), headers: Vec::new() }
}

/// Takes [`lost_worker_record`] back, once the worker has read it.
pub fn lost_worker_tombstone(topics: &Topics, worker: &str) -> Record {
    Record { topic: topics.lanes(), key: Some(worker_key(worker)), value: None, headers: Vec::new() }
}

fn worker_key(worker: &str) -> Vec<u8> {
    format!("{WORKER}{worker}").into_bytes()
}

/// Reads a record of `meanwhile.lanes`. None for a tombstone of a worker.
///
/// # Errors
/// The value is none of ours.
pub fn read(record: &Inbound) -> Result<Option<LaneNews>, DecodeError> {
    let key = record.key.clone().unwrap_or_default();
    let is_worker = key.starts_with(WORKER.as_bytes());
    let Some(value) = &record.value else { return Ok((!is_worker).then_some(LaneNews::Free(key))) };
    let other = |error: serde_json::Error| DecodeError::field("lane", error);
    if is_worker {
        let lost: LostWire = serde_json::from_slice(value).map_err(other)?;
        return Ok(Some(LaneNews::Lost(lost.lost_worker)));
    }
    serde_json::from_slice(value).map(LaneNews::Held).map(Some).map_err(other)
}

/// A lane's holder is over, and so many of the slips behind it have been sent again. The record stands on the steps
/// topic behind them: whoever reads it has read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freed {
    /// The token that held the lane.
    pub holder: TokenId,
    /// The last place behind it that was sent again; 0: none.
    pub turns: u32,
}

impl Freed {
    /// The record, for the lane of `key` on a steps topic.
    pub fn record(&self, topic: String, key: Vec<u8>) -> Record {
        let free = format!("{}#{}", self.holder, self.turns).into_bytes();
        Record { topic, key: Some(key), value: None, headers: vec![(header::LANE_FREE.to_owned(), Some(free))] }
    }

    /// Reads a record of a steps topic. None for a slip.
    pub fn read(record: &Inbound) -> Option<Self> {
        let (holder, turns) = record.header_text(header::LANE_FREE)?.rsplit_once('#')?;
        Some(Self { holder: holder.parse().ok()?, turns: turns.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use flow::id::JobId;

    use super::*;

    fn inbound(record: Record) -> Inbound {
        let Record { topic, key, value, headers } = record;
        Inbound { topic, key, value, headers, ..Inbound::default() }
    }

    fn lane() -> HeldLane {
        let (topic, lane) = ("m.steps.default".to_owned(), "acme/order/customer-1".to_owned());
        HeldLane { topic, partition: 2, lane, holder: "a:b:3".to_owned(), turns: 4 }
    }

    #[test]
    fn what_is_written_of_lanes_and_workers_reads_back() {
        let topics = Topics::new("m");
        let lane = lane();
        assert_eq!(read(&inbound(lane.record(&topics))).unwrap(), Some(LaneNews::Held(lane.clone())));
        assert_eq!(read(&inbound(lane.tombstone(&topics))).unwrap(), Some(LaneNews::Free(lane.record_key())));
        let lost = inbound(lost_worker_record(&topics, "host-1/7"));
        assert_eq!(read(&lost).unwrap(), Some(LaneNews::Lost("host-1/7".to_owned())));
        assert_eq!(read(&inbound(lost_worker_tombstone(&topics, "host-1/7"))).unwrap(), None);
        assert!(read(&Inbound { value: Some(b"{}".to_vec()), ..Inbound::default() }).is_err());
    }

    #[test]
    fn a_freed_lane_names_its_holder_and_how_many_were_sent() {
        let holder = TokenId { job: JobId::new(uuid::Uuid::from_u128(7)), branch: "b:1".to_owned(), hop: 3 };
        let freed = Freed { holder, turns: 12 };
        let record = inbound(freed.record("m.steps.default".to_owned(), b"k".to_vec()));
        assert_eq!(Freed::read(&record), Some(freed));
        assert_eq!(Freed::read(&Inbound::default()), None);
    }
}
