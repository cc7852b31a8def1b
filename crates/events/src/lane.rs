//! Lanes that long calls hold, as `meanwhile.lanes` has them (JSON, compacted), and the record that frees a lane.
//!
//! A lane is the slips of one queue that share a record key: one of them runs at a time. While a long call holds a
//! lane, later slips of it rest as holds of reason `turn`. The worker that owns the partition writes a lane's state in
//! the transaction that commits the slips' offsets, so that the partition's next owner goes on from there.

use flow::id::TokenId;
use serde::{Deserialize, Serialize};

use crate::error::DecodeError;
use crate::header;
use crate::headers::Headers;
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
    /// The places of the slips behind it.
    #[serde(flatten)]
    pub places: Places,
}

/// The places in a lane. A slip gets one when it is first laid to rest behind a holder, and keeps it until it has run:
/// so a slip that was sent again, and finds the lane held by another one by then, rests where it stood. They pass in
/// their order: one that comes before those of earlier places rests again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Places {
    /// The last place that was given.
    #[serde(rename = "turns")]
    pub last: u32,
    /// The slips of all places up to this one have passed, or hold the lane.
    #[serde(default)]
    pub passed: u32,
    /// Later places to which no slip comes back, in no order. The last place is none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub empty: Vec<u32>,
}

impl Places {
    /// The place of a slip that is to rest: the one that it had, or the next.
    pub fn rest(&mut self, had: Option<u32>) -> u32 {
        match had.filter(|place| self.is_out(*place)) {
            Some(place) => place,
            None => {
                self.last += 1;
                self.last
            }
        }
    }

    /// Whether every slip of an earlier place has passed. Of a slip without a place (0): it is the holder itself.
    pub fn may_pass(&self, had: u32) -> bool {
        let empty = self.empty.iter().filter(|place| **place < had).count();
        had <= self.passed || (had - self.passed - 1) as usize == empty
    }

    /// The slip of this place passes.
    pub fn pass(&mut self, place: u32) {
        self.passed = self.passed.max(place);
        self.empty.retain(|empty| *empty > place);
    }

    /// The slip of this place did not rest there after all, and does not come back.
    pub fn take_back(&mut self, place: u32) {
        self.empty.push(place);
        while let Some(index) = self.empty.iter().position(|empty| *empty == self.last) {
            self.empty.swap_remove(index);
            self.last -= 1;
        }
    }

    /// Whether every slip behind the holder has passed.
    pub const fn are_over(&self) -> bool {
        self.passed >= self.last
    }

    const fn is_out(&self, place: u32) -> bool {
        self.passed < place && place <= self.last
    }
}

/// The place that a slip had in its lane, if it was sent again from there.
pub fn place_of(record: &Inbound) -> Option<u32> {
    record.header_text(header::TURN_PLACE)?.parse().ok()
}

/// The headers by which a slip passes its lane once `holder` is over. Place 0: it is the slip of the holder.
pub fn turn_headers(holder: &TokenId, place: u32) -> Headers {
    let mut headers = Headers::default();
    headers.push_text(header::TURN, holder);
    headers.push_text(header::TURN_PLACE, place);
    headers
}

/// The meaning of a record of `meanwhile.lanes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneNews {
    /// The lane is held, by this token.
    Held(HeldLane),
    /// The lane with this record key on `meanwhile.lanes` is free.
    Free(Vec<u8>),
    /// This worker was declared lost: its running calls were given to others.
    Lost(String),
}

/// The prefix of the key of [`LaneNews::Lost`], before the worker.
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

    /// The record that tells that the lane is held.
    pub fn record(&self, topics: &Topics) -> Record {
        let value = serde_json::to_vec(self).expect("texts and numbers are JSON");
        Record { topic: topics.lanes(), key: Some(self.record_key()), value: Some(value), headers: Headers::default() }
    }

    /// The tombstone that tells that the lane is free.
    pub fn tombstone(&self, topics: &Topics) -> Record {
        Record { topic: topics.lanes(), key: Some(self.record_key()), value: None, headers: Headers::default() }
    }
}

/// `<steps topic>/<record key>`. A topic has no slash in its name.
fn lane_key(topic: &str, lane: &str) -> Vec<u8> {
    format!("{topic}/{lane}").into_bytes()
}

/// The record that tells a worker that it was declared lost.
pub fn lost_worker_record(topics: &Topics, worker: &str) -> Record {
    let wire = LostWire { lost_worker: worker.to_owned() };
    let value = serde_json::to_vec(&wire).expect("a text is JSON");
    Record { topic: topics.lanes(), key: Some(worker_key(worker)), value: Some(value), headers: Headers::default() }
}

/// Deletes [`lost_worker_record`], once the worker has read it or the record is old.
pub fn lost_worker_tombstone(topics: &Topics, worker: &str) -> Record {
    Record { topic: topics.lanes(), key: Some(worker_key(worker)), value: None, headers: Headers::default() }
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

/// The record that frees a lane: its holder is over, and so many of the slips behind it have been sent again. It stands
/// on the steps topic behind them, so that its reader has read them.
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
        Record { topic, key: Some(key), value: None, headers: Headers::from([(header::LANE_FREE, Some(free))]) }
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
        let places = Places { last: 4, ..Places::default() };
        HeldLane { topic, partition: 2, lane, holder: "a:b:3".to_owned(), places }
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
    fn a_lane_that_an_earlier_version_wrote_has_places_from_the_first_on() {
        let old =
            br#"{"topic":"m.steps.default","partition":2,"lane":"acme/order/customer-1","holder":"a:b:3","turns":4}"#;
        let record = Inbound { value: Some(old.to_vec()), ..Inbound::default() };
        assert_eq!(read(&record).unwrap(), Some(LaneNews::Held(lane())));
        let written = String::from_utf8(lane().record(&Topics::new("m")).value.unwrap()).unwrap();
        assert!(written.ends_with(r#""holder":"a:b:3","turns":4,"passed":0}"#), "{written}");
    }

    #[test]
    fn a_slip_keeps_its_place_whoever_holds_the_lane_by_then() {
        let mut places = Places::default();
        assert_eq!([places.rest(None), places.rest(None), places.rest(None)], [1, 2, 3]);
        // All three were sent again; the first ran, the second takes long. A fourth had come in between.
        assert_eq!(places.rest(None), 4);
        places.pass(1);
        places.pass(2);
        assert_eq!([places.rest(Some(3)), places.rest(None), places.rest(Some(4))], [3, 5, 4]);
        assert_eq!(places.rest(Some(2)), 6, "those that have passed have no place any more");
    }

    #[test]
    fn slips_pass_in_their_order_and_the_lane_is_over_with_the_last() {
        let mut places = Places { last: 4, passed: 1, ..Places::default() };
        assert!(places.may_pass(0), "the holder itself");
        assert!(places.may_pass(2) && !places.may_pass(3));
        places.take_back(2);
        assert!(places.may_pass(3) && !places.may_pass(4));
        for place in [3, 4] {
            assert!(!places.are_over());
            places.pass(place);
        }
        assert!(places.are_over() && places.empty.is_empty());
    }

    #[test]
    fn a_place_to_which_nobody_comes_back_keeps_no_lane_held() {
        let mut places = Places { last: 5, passed: 2, ..Places::default() };
        places.take_back(4);
        assert_eq!((places.last, &*places.empty), (5, &[4][..]));
        places.take_back(5);
        assert_eq!((places.last, &*places.empty), (3, &[][..]));
        places.take_back(3);
        assert!(places.are_over(), "only the holder is left");
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
