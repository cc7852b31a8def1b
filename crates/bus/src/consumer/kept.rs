//! Records of paused partitions that were fetched already. librdkafka would throw them away, and take up to a second to
//! fetch again after a resumption. So fetching stops only when much is kept.
//!
//! Invariant: a topic that hangs stops no other one: each has a budget of its own.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::TopicPartition;
use crate::Inbound;

/// Bytes kept of a topic before its fetching stops. Fetching goes on at three quarters.
const TOPIC_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes kept of all topics together, which they share equally where they are many.
const ALL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The least that each of many topics may keep.
const TOPIC_BYTES_MIN: usize = 1024 * 1024;
/// The time for which a full store keeps the thread from polling, where there is one topic only, before fetching stops.
/// Quick work makes room within it. A rebalance waits for this time.
const FULL_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Partitions whose records are not wanted now.
    paused: HashSet<TopicPartition>,
    records: HashMap<TopicPartition, VecDeque<Inbound>>,
    /// Topics with records here, or with partitions that are not fetched.
    topics: HashMap<String, Topic>,
}

#[derive(Debug, Default)]
struct Topic {
    bytes: usize,
    /// Partitions that are not fetched at present.
    stopped: HashSet<i32>,
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
        self.topics.entry(place.topic.clone()).or_default().bytes += record.size_bytes();
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
        self.count_out(&place.topic, record.as_ref().map_or(0, Inbound::size_bytes));
        record
    }

    /// True if `next` would return a record.
    pub(super) fn has_next(&self) -> bool {
        self.records.keys().any(|place| !self.paused.contains(place))
    }

    /// Forgets a partition that is not ours any more.
    pub(super) fn forget(&mut self, place: &TopicPartition) {
        self.paused.remove(place);
        if let Some(topic) = self.topics.get_mut(&place.topic) {
            topic.stopped.remove(&place.partition);
        }
        self.drop_records(place);
    }

    /// Drops the records of a partition whose reading continues at another offset.
    pub(super) fn drop_records(&mut self, place: &TopicPartition) {
        let dropped = self.records.remove(place).unwrap_or_default();
        self.count_out(&place.topic, dropped.iter().map(Inbound::size_bytes).sum());
    }

    fn count_out(&mut self, name: &str, bytes: usize) {
        let Some(topic) = self.topics.get_mut(name) else { return };
        topic.bytes -= bytes;
        if topic.bytes == 0 && topic.stopped.is_empty() {
            self.topics.remove(name);
        }
    }

    fn topic_bytes_max(&self) -> usize {
        (ALL_BYTES_MAX / self.topics.len().max(1)).clamp(TOPIC_BYTES_MIN, TOPIC_BYTES_MAX)
    }

    /// True if the consumer should not poll now: much is kept of its only topic, and has been for a short time only.
    pub(super) fn is_full(&mut self, only_topic: bool, now: Instant) -> bool {
        let max = self.topic_bytes_max();
        let mut is_full = false;
        for topic in self.topics.values_mut() {
            if topic.bytes < max {
                topic.full_since = None;
            } else {
                is_full |= now.duration_since(*topic.full_since.get_or_insert(now)) < FULL_WAIT;
            }
        }
        is_full && only_topic
    }

    /// Partitions to fetch no more: much is kept of their topic, and has been for long if it is the only one.
    pub(super) fn take_to_stop(&mut self, only_topic: bool, now: Instant) -> Vec<TopicPartition> {
        let max = self.topic_bytes_max();
        if self.topics.values().all(|topic| topic.bytes < max) || self.is_full(only_topic, now) {
            return Vec::new();
        }
        let mut to_stop = Vec::new();
        for place in &self.paused {
            if let Some(topic) = self.topics.get_mut(&place.topic).filter(|topic| topic.bytes >= max)
                && topic.stopped.insert(place.partition)
            {
                to_stop.push(place.clone());
            }
        }
        to_stop
    }

    /// Another client fetches every partition at first.
    pub(super) fn fetch_all(&mut self) {
        self.topics.values_mut().for_each(|topic| topic.stopped.clear());
        self.topics.retain(|_, topic| topic.bytes > 0);
    }

    /// Partitions to fetch again: little is kept of their topic, or they are not paused and nothing is kept of them.
    pub(super) fn take_to_fetch(&mut self) -> Vec<TopicPartition> {
        let max = self.topic_bytes_max();
        let mut to_fetch = Vec::new();
        for (name, topic) in &mut self.topics {
            let roomy = topic.bytes <= max / 4 * 3;
            topic.stopped.retain(|partition| {
                let place = TopicPartition::new(name.as_str(), *partition);
                let fetch = roomy || !(self.paused.contains(&place) || self.records.contains_key(&place));
                if fetch {
                    to_fetch.push(place);
                }
                !fetch
            });
        }
        self.topics.retain(|_, topic| topic.bytes > 0 || !topic.stopped.is_empty());
        to_fetch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: i32, offset: i64, bytes: usize) -> Inbound {
        record_of("t", partition, offset, bytes)
    }

    fn record_of(topic: &str, partition: i32, offset: i64, bytes: usize) -> Inbound {
        Inbound { topic: topic.to_owned(), partition, offset, value: Some(vec![0; bytes]), ..Inbound::default() }
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
        assert_eq!(offsets, [2, 3]);
        assert!(kept.topics.is_empty());
        assert!(kept.keep(record(0, 4, 10)).is_some());
    }

    #[test]
    fn fetching_stops_when_much_is_kept_and_goes_on_when_less_is() {
        let mut kept = Kept::default();
        kept.pause([place(0), place(1)]);
        let half = TOPIC_BYTES_MAX / 2;
        assert!(kept.keep(record(0, 0, half)).is_none());
        let now = Instant::now();
        assert!(!kept.is_full(true, now) && kept.take_to_stop(true, now).is_empty());
        assert!(kept.keep(record(1, 0, half)).is_none());
        assert!(kept.is_full(true, now) && kept.take_to_stop(true, now).is_empty(), "there may be room again soon");
        let later = now + FULL_WAIT;
        assert!(!kept.is_full(true, later), "rebalances must not wait for ever");
        assert_eq!(kept.take_to_stop(true, later).len(), 2);
        assert!(kept.take_to_stop(true, later).is_empty(), "once");
        assert!(kept.take_to_fetch().is_empty());
        kept.forget(&place(1));
        assert_eq!(kept.take_to_fetch(), [place(0)], "the other is not ours any more");
        kept.resume(&[place(0)]);
        assert!(kept.has_next() && kept.next().is_some() && kept.topics.is_empty());
    }

    #[test]
    fn a_topic_that_hangs_stops_no_other_one() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        let healthy = TopicPartition::new("healthy", 0);
        kept.pause([place(0), place(1), healthy.clone()]);
        assert!(kept.keep(record(0, 0, TOPIC_BYTES_MAX)).is_none());
        assert!(kept.keep(record_of("healthy", 0, 0, 10)).is_none());
        assert!(!kept.is_full(false, now), "the thread goes on polling for the other");
        let mut stopped = kept.take_to_stop(false, now);
        stopped.sort();
        assert_eq!(stopped, [place(0), place(1)]);
        assert!(kept.take_to_fetch().is_empty());
        kept.resume(&[place(1)]);
        assert_eq!(kept.take_to_fetch(), [place(1)], "it is wanted, and nothing is kept of it");
        kept.resume(&[healthy]);
        assert!(kept.next().is_some_and(|record| record.topic == "healthy"));
    }

    #[test]
    fn many_topics_share_what_may_be_kept() {
        let mut kept = Kept::default();
        for number in 0..200 {
            let name = format!("t{number}");
            kept.pause([TopicPartition::new(name.as_str(), 0)]);
            assert!(kept.keep(record_of(&name, 0, 0, 10)).is_none());
        }
        assert_eq!(kept.topic_bytes_max(), TOPIC_BYTES_MIN);
        (0..196).for_each(|number| kept.forget(&TopicPartition::new(format!("t{number}"), 0)));
        assert_eq!(kept.topic_bytes_max(), TOPIC_BYTES_MAX);
    }
}
