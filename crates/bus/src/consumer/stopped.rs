//! Partitions of ours that are read no more: their offset is not in the log, or a batch cannot be read.

use std::collections::HashSet;

use super::TopicPartition;

/// Partitions that librdkafka has stopped reading. It reports each once, without a name.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    places: HashSet<TopicPartition>,
    /// Reports, less the partitions that were found for them.
    pub(super) unexplained: i64,
    /// Partitions whose next batch cannot be read.
    unreadable: HashSet<TopicPartition>,
}

impl Stopped {
    /// True if the partition was not known to be stopped.
    pub(super) fn insert(&mut self, place: &TopicPartition) -> bool {
        let new = self.places.insert(place.clone());
        self.unexplained -= i64::from(new);
        new
    }

    /// True if the partition was not known to have such a batch next.
    pub(super) fn insert_unreadable(&mut self, place: &TopicPartition) -> bool {
        self.unreadable.insert(place.clone())
    }

    /// True if its next batch cannot be read: what comes from behind it is not to be delivered.
    pub(super) fn is_unreadable(&self, topic: &str, partition: i32) -> bool {
        !self.unreadable.is_empty() && self.unreadable.contains(&TopicPartition::new(topic, partition))
    }

    /// The partition is to be read from elsewhere. True if its batch could not be read.
    pub(super) fn try_again(&mut self, place: &TopicPartition) -> bool {
        self.unreadable.remove(place)
    }

    pub(super) fn forget(&mut self, place: &TopicPartition) {
        self.unreadable.remove(place);
        // The report of one that was found at the report of another may never come now.
        if self.places.remove(place) && self.places.is_empty() {
            self.unexplained = self.unexplained.max(0);
        }
    }
}
