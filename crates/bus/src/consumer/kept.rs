//! Records of paused partitions that were fetched already. librdkafka would throw them away, and take up to a second to
//! fetch again after a resumption. So fetching stops only when much is kept.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::TopicPartition;
use crate::Inbound;

/// Bytes kept before fetching stops, all partitions of a consumer together. Fetching goes on at three quarters.
const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A full store first keeps the thread from polling, for so long; then fetching stops. Where work is quick there is
/// room again by then. Rebalances wait for so long.
const FULL_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Partitions whose records are not wanted now.
    paused: HashSet<TopicPartition>,
    /// Partitions that are not fetched at present.
    stopped: HashSet<TopicPartition>,
    records: HashMap<TopicPartition, VecDeque<Inbound>>,
    bytes: usize,
    full_since: Option<Instant>,
}

impl Kept {
    pub(super) fn pause(&mut self, places: impl IntoIterator<Item = TopicPartition>) {
        self.paused.extend(places);
    }

    pub(super) fn resume(&mut self, places: &[TopicPartition]) {
        for place in places {
            self.paused.remove(place);
        }
    }

    /// Takes a record that must not be delivered yet; gives any other back.
    pub(super) fn keep(&mut self, record: Inbound) -> Option<Inbound> {
        if self.paused.is_empty() && self.records.is_empty() {
            return Some(record);
        }
        let place = TopicPartition::new(record.topic.clone(), record.partition);
        if !self.paused.contains(&place) && !self.records.contains_key(&place) {
            return Some(record);
        }
        self.bytes += record.size_bytes();
        self.records.entry(place).or_default().push_back(record);
        None
    }

    /// The next record of a partition that is paused no more.
    pub(super) fn next(&mut self) -> Option<Inbound> {
        let place = self.records.keys().find(|place| !self.paused.contains(place))?.clone();
        let records = self.records.get_mut(&place)?;
        let record = records.pop_front();
        if records.is_empty() {
            self.records.remove(&place);
        }
        self.bytes -= record.as_ref().map_or(0, Inbound::size_bytes);
        record
    }

    /// Whether `next` has something.
    pub(super) fn has_next(&self) -> bool {
        self.records.keys().any(|place| !self.paused.contains(place))
    }

    /// These are not ours any more.
    pub(super) fn forget(&mut self, place: &TopicPartition) {
        self.paused.remove(place);
        self.stopped.remove(place);
        self.drop_records(place);
    }

    /// Reading continues at another offset.
    pub(super) fn drop_records(&mut self, place: &TopicPartition) {
        let dropped = self.records.remove(place).unwrap_or_default();
        self.bytes -= dropped.iter().map(Inbound::size_bytes).sum::<usize>();
    }

    /// Whether nothing more is to be polled now: much is kept, and has been for a short time only.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        if self.bytes < KEPT_BYTES_MAX {
            self.full_since = None;
            return false;
        }
        now.duration_since(*self.full_since.get_or_insert(now)) < FULL_WAIT
    }

    /// Partitions to fetch no more: much has been kept for long.
    pub(super) fn take_to_stop(&mut self, now: Instant) -> Vec<TopicPartition> {
        if self.bytes < KEPT_BYTES_MAX || self.is_full(now) {
            return Vec::new();
        }
        let to_stop: Vec<TopicPartition> = self.paused.difference(&self.stopped).cloned().collect();
        self.stopped.extend(to_stop.iter().cloned());
        to_stop
    }

    /// Partitions to fetch again.
    pub(super) fn take_to_fetch(&mut self) -> Vec<TopicPartition> {
        if self.stopped.is_empty() || self.bytes > KEPT_BYTES_MAX / 4 * 3 {
            return Vec::new();
        }
        self.stopped.drain().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: i32, offset: i64, bytes: usize) -> Inbound {
        Inbound { topic: "t".to_owned(), partition, offset, value: Some(vec![0; bytes]), ..Inbound::default() }
    }

    fn place(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    #[test]
    fn records_of_a_paused_partition_come_later_and_in_order() {
        let mut kept = Kept::default();
        assert!(kept.keep(record(0, 1, 10)).is_some());
        kept.pause([place(0)]);
        assert!(kept.keep(record(0, 2, 10)).is_none());
        assert!(kept.keep(record(1, 7, 10)).is_some(), "another partition");
        assert!(!kept.has_next());
        kept.resume(&[place(0)]);
        assert!(kept.keep(record(0, 3, 10)).is_none(), "behind the one that is kept");
        let offsets: Vec<i64> = std::iter::from_fn(|| kept.next()).map(|record| record.offset).collect();
        assert_eq!((offsets, kept.bytes), (vec![2, 3], 0));
        assert!(kept.keep(record(0, 4, 10)).is_some());
    }

    #[test]
    fn fetching_stops_when_much_is_kept_and_goes_on_when_less_is() {
        let mut kept = Kept::default();
        kept.pause([place(0), place(1)]);
        let half = KEPT_BYTES_MAX / 2;
        assert!(kept.keep(record(0, 0, half)).is_none());
        let now = Instant::now();
        assert!(!kept.is_full(now) && kept.take_to_stop(now).is_empty());
        assert!(kept.keep(record(1, 0, half)).is_none());
        assert!(kept.is_full(now) && kept.take_to_stop(now).is_empty(), "there may be room again soon");
        let later = now + FULL_WAIT;
        assert!(!kept.is_full(later), "rebalances must not wait for ever");
        assert_eq!(kept.take_to_stop(later).len(), 2);
        assert!(kept.take_to_stop(later).is_empty(), "once");
        assert!(kept.take_to_fetch().is_empty());
        kept.forget(&place(1));
        assert_eq!(kept.take_to_fetch(), [place(0)], "the other is not ours any more");
        kept.resume(&[place(0)]);
        assert!(kept.has_next() && kept.next().is_some() && kept.bytes == 0);
    }
}
