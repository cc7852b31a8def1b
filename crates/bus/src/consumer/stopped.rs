//! Partitions of ours that are read no more, since their offset is not in the log.

use std::collections::HashSet;

use super::TopicPartition;

/// Partitions that librdkafka has stopped reading. It reports each once, without a name.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    places: HashSet<TopicPartition>,
    /// Reports, less the partitions that were found for them.
    pub(super) unexplained: i64,
}

impl Stopped {
    /// True if the partition was not known to be stopped.
    pub(super) fn insert(&mut self, place: &TopicPartition) -> bool {
        let new = self.places.insert(place.clone());
        self.unexplained -= i64::from(new);
        new
    }

    pub(super) fn forget(&mut self, place: &TopicPartition) {
        // The report of one that was found at the report of another may never come now.
        if self.places.remove(place) && self.places.is_empty() {
            self.unexplained = self.unexplained.max(0);
        }
    }
}
