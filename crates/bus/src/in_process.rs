//! The in-process broker of dev mode: librdkafka's mock broker, and the parts that it lacks.
//!
//! The mock broker keeps at most 5 MiB or 100,000 records per partition, in memory. It knows no CreateTopics, no
//! isolation and no consumer groups, and it throws away offsets that a transaction commits. So this value creates the
//! topics, keeps the committed offsets, and counts what is still unread.

mod broker;
mod capacity;
mod unread;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use self::broker::Broker;
pub use self::capacity::{DevCapacity, OverCapacity, Writes};
use self::unread::{Reader, Unread};
use crate::Error;
use crate::offset_commit::OffsetCommit;
use events::place::TopicPartition;

/// A running broker. It ends when its last holder drops it.
#[derive(Debug)]
pub struct InProcess {
    broker: Broker,
    /// Offset and metadata by group and partition.
    committed: Mutex<BTreeMap<(String, TopicPartition), (i64, String)>>,
    unread: Mutex<Unread>,
}

impl InProcess {
    /// Starts one on 127.0.0.1, at a port of its own choice.
    pub fn start() -> Result<Arc<Self>, Error> {
        let broker = Broker::start()?;
        Ok(Arc::new(Self { broker, committed: Mutex::default(), unread: Mutex::default() }))
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        self.broker.address()
    }

    /// Creates a topic; one that exists already stays as it is.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        self.broker.create_topic(topic, partitions)
    }

    /// The offset that the group has committed, and its metadata.
    pub(crate) fn committed(&self, group: &str, place: &TopicPartition) -> Option<(i64, String)> {
        self.committed.lock().get(&(group.to_owned(), place.clone())).cloned()
    }

    /// Commits offsets. The group reads nothing below them again.
    pub(crate) fn commit(&self, group: &str, commits: Vec<OffsetCommit>) {
        for OffsetCommit { topic, partition, next_offset, metadata } in commits {
            let place = TopicPartition::new(topic, partition);
            self.unread.lock().starts(Reader::Group(group.to_owned()), &place, next_offset);
            self.committed.lock().insert((group.to_owned(), place), (next_offset, metadata.unwrap_or_default()));
        }
    }

    /// Counts a record that was written.
    pub(crate) fn wrote(&self, topic: &str, partition: i32, offset: i64, bytes: usize) {
        self.unread.lock().wrote(&TopicPartition::new(topic, partition), offset, bytes);
    }

    /// A reader that commits nothing: a record counts as read once it was delivered.
    pub(crate) fn reader(self: &Arc<Self>) -> UncommittedReader {
        let reader = self.unread.lock().new_reader();
        UncommittedReader { in_process: Arc::clone(self), reader }
    }
}

/// One reader without committed offsets. What it has not read counts as unread until it is dropped.
#[derive(Debug)]
pub(crate) struct UncommittedReader {
    in_process: Arc<InProcess>,
    reader: Reader,
}

impl UncommittedReader {
    /// It reads this partition from this offset on.
    pub(crate) fn starts(&self, place: &TopicPartition, next_offset: i64) {
        self.in_process.unread.lock().starts(self.reader.clone(), place, next_offset);
    }

    /// It has come to this offset, or gone back to it. Changes nothing where it has not started.
    pub(crate) fn moved(&self, place: &TopicPartition, next_offset: i64) {
        self.in_process.unread.lock().moved(&self.reader, place, next_offset);
    }
}

impl Drop for UncommittedReader {
    fn drop(&mut self) {
        self.in_process.unread.lock().left(&self.reader);
    }
}
