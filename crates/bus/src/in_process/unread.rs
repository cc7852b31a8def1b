//! Counts the records of the in-process broker that are still unread.
//!
//! The broker drops the oldest records of a full partition, whether they were read or not. A slip among them would be a
//! lost job. So a record counts as unread here until everybody who reads its partition has read it. A consumer group
//! has read what it has committed.

use std::collections::{BTreeMap, VecDeque};

use events::place::TopicPartition;

/// The limits of a partition in librdkafka's mock broker: bytes, and batches of records.
pub(super) const KEPT_BYTES_MAX: u64 = 5 * 1024 * 1024;
pub(super) const KEPT_RECORDS_MAX: usize = 100_000;
/// Taken on top of each record's own bytes: it may be alone in its batch.
const FRAME_BYTES: u64 = 100;

/// A reader of partitions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reader {
    Group(String),
    Uncommitted(u64),
}

/// The unread records of one partition.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Offset and bytes.
    records: VecDeque<(i64, u64)>,
    bytes: u64,
    /// Each reader's next offset.
    readers: BTreeMap<Reader, i64>,
}

impl Log {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn records(&self) -> usize {
        self.records.len()
    }

    /// True if more than this share of the bytes or records that the broker keeps is unread.
    pub(super) fn is_over(&self, percent: u64) -> bool {
        let records = u64::try_from(self.records.len()).unwrap_or(u64::MAX);
        self.bytes * 100 > KEPT_BYTES_MAX * percent || records * 100 > KEPT_RECORDS_MAX as u64 * percent
    }

    fn trim(&mut self) {
        let floor = self.readers.values().min().copied().unwrap_or(0);
        // A topic without readers (progress) is counted up to what the broker keeps.
        let kept = |log: &Self| log.bytes <= KEPT_BYTES_MAX && log.records.len() <= KEPT_RECORDS_MAX;
        while self.records.front().is_some_and(|(offset, _)| *offset < floor || !kept(&*self)) {
            self.bytes -= self.records.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }
}

/// All partitions of a broker.
#[derive(Debug, Default)]
pub(super) struct Unread {
    logs: BTreeMap<TopicPartition, Log>,
    readers: u64,
    /// True if the lack of room was logged.
    pub(super) is_reported: bool,
}

impl Unread {
    pub(super) fn logs(&self) -> impl Iterator<Item = (&TopicPartition, &Log)> {
        self.logs.iter()
    }

    pub(super) fn new_reader(&mut self) -> Reader {
        self.readers += 1;
        Reader::Uncommitted(self.readers)
    }

    pub(super) fn wrote(&mut self, place: &TopicPartition, offset: i64, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(FRAME_BYTES);
        self.change(place, |log| {
            log.records.push_back((offset, bytes));
            log.bytes += bytes;
        });
    }

    pub(super) fn starts(&mut self, reader: Reader, place: &TopicPartition, next_offset: i64) {
        self.change(place, |log| {
            log.readers.insert(reader, next_offset);
        });
    }

    /// Changes nothing where the reader has not started.
    pub(super) fn moved(&mut self, reader: &Reader, place: &TopicPartition, next_offset: i64) {
        self.change(place, |log| {
            if let Some(known) = log.readers.get_mut(reader) {
                *known = next_offset;
            }
        });
    }

    pub(super) fn left(&mut self, reader: &Reader) {
        for log in self.logs.values_mut() {
            log.readers.remove(reader);
            log.trim();
        }
    }

    fn change(&mut self, place: &TopicPartition, change: impl FnOnce(&mut Log)) {
        let log = self.logs.entry(place.clone()).or_default();
        change(log);
        log.trim();
    }
}
