//! Records that were read and not yet taken: between the consumer's thread and the caller's task.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;

use super::{PartitionRecords, RecordBatch};
use crate::Inbound;
use crate::consumer::{ConsumerError, TopicPartition};

/// The state that the consumer's thread and the caller's task share.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// There is something to take.
    pub(super) filled: Notify,
    /// There may be room again.
    pub(super) room: Condvar,
    pub(super) stopping: AtomicBool,
    pub(super) records_max: usize,
    pub(super) bytes_max: usize,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) partitions: BTreeMap<TopicPartition, Buffer>,
    pub(super) records: usize,
    pub(super) bytes: usize,
    pub(super) failure: Option<ConsumerError>,
    /// Partitions whose next batch cannot be read: its offset, and the reason.
    pub(super) unreadable: BTreeMap<TopicPartition, (i64, String)>,
}

impl State {
    pub(super) fn count_out(&mut self, records: usize, bytes: usize) {
        self.records -= records;
        self.bytes -= bytes;
    }
}

#[derive(Default)]
pub(super) struct Buffer {
    pub(super) first_offset: i64,
    pub(super) records: Vec<Inbound>,
    pub(super) bytes: usize,
    /// No record before this one is taken in.
    pub(super) expected: i64,
    /// Present: nothing is taken in.
    pub(super) rewinding: Option<Rewinding>,
}

/// The way back to the stored position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rewinding {
    /// The stored position has to be read again.
    Due,
    /// It is this one, and the consumer has not gone there yet: what comes is from elsewhere.
    Seeking(i64),
}

impl Buffer {
    /// Empty, at the stored position.
    pub(super) fn at(position: i64) -> Self {
        Self { first_offset: position, expected: position, ..Self::default() }
    }

    /// True if a record of this offset is to be taken in.
    pub(super) fn takes(&self, offset: i64) -> bool {
        self.rewinding.is_none() && offset >= self.expected
    }

    pub(super) fn clear(&mut self) -> (usize, usize) {
        let out = (self.records.len(), self.bytes);
        self.records.clear();
        self.bytes = 0;
        out
    }
}

impl Shared {
    pub(super) fn new(records_max: usize, bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            filled: Notify::new(),
            room: Condvar::new(),
            stopping: AtomicBool::new(false),
            records_max: records_max.max(1),
            bytes_max: bytes_max.max(1),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn is_full(&self, state: &State) -> bool {
        state.records >= self.records_max || state.bytes >= self.bytes_max
    }

    pub(super) fn take(&self, records_max: usize, bytes_max: usize) -> RecordBatch {
        let mut state = self.lock();
        let (mut records, mut bytes) = (0, 0);
        let mut parts = Vec::new();
        for (place, buffer) in &mut state.partitions {
            if buffer.records.is_empty() || records >= records_max || bytes >= bytes_max {
                continue;
            }
            let taken: Vec<Inbound> = {
                let count = buffer.records.len().min(records_max - records);
                buffer.records.drain(..count).collect()
            };
            let taken_bytes: usize = taken.iter().map(Inbound::size_bytes).sum();
            buffer.bytes -= taken_bytes;
            records += taken.len();
            bytes += taken_bytes;
            let next_offset = taken.last().map_or(buffer.first_offset, |record| record.offset + 1);
            let first_offset = std::mem::replace(&mut buffer.first_offset, next_offset);
            let (topic, partition) = (place.topic.clone(), place.partition);
            parts.push(PartitionRecords { topic, partition, first_offset, next_offset, records: taken });
        }
        state.count_out(records, bytes);
        self.room.notify_all();
        RecordBatch { parts }
    }
}
