//! The partitions that are ours, and the next offset to be delivered of each.

use std::collections::HashMap;

use super::TopicPartition;

/// By topic, then partition, so that a look-up needs no text of its own.
#[derive(Debug, Clone, Default)]
pub(super) struct Owned(HashMap<String, HashMap<i32, Option<i64>>>);

impl Owned {
    /// `next_offset` is none until the first record after a logical start (beginning or end).
    pub(super) fn insert(&mut self, place: &TopicPartition, next_offset: Option<i64>) {
        self.0.entry(place.topic.clone()).or_default().insert(place.partition, next_offset);
    }

    /// True when the partition was ours.
    pub(super) fn remove(&mut self, place: &TopicPartition) -> bool {
        let Some(topic) = self.0.get_mut(&place.topic) else { return false };
        let was_ours = topic.remove(&place.partition).is_some();
        if topic.is_empty() {
            self.0.remove(&place.topic);
        }
        was_ours
    }

    /// True if all that is ours is of one topic.
    pub(super) fn is_one_topic(&self) -> bool {
        self.0.len() == 1
    }

    pub(super) fn contains(&self, place: &TopicPartition) -> bool {
        self.0.get(&place.topic).is_some_and(|topic| topic.contains_key(&place.partition))
    }

    pub(super) fn next_offset(&self, place: &TopicPartition) -> Option<i64> {
        self.0.get(&place.topic)?.get(&place.partition).copied().flatten()
    }

    /// True if this record is to be delivered: the partition is ours, and no seek went past it. Moves the offset on.
    pub(super) fn advance(&mut self, topic: &str, partition: i32, offset: i64) -> bool {
        let Some(next) = self.0.get_mut(topic).and_then(|topic| topic.get_mut(&partition)) else { return false };
        if next.is_some_and(|next| offset < next) {
            return false;
        }
        *next = Some(offset + 1);
        true
    }

    pub(super) fn places(&self) -> Vec<TopicPartition> {
        self.iter().map(|(place, _)| place).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TopicPartition, Option<i64>)> {
        self.0.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, next)| (TopicPartition::new(topic, *partition), *next))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_before_a_seek_and_of_partitions_that_are_not_ours_are_passed_over() {
        let (mut owned, place) = (Owned::default(), TopicPartition::new("t", 0));
        assert!(!owned.advance("t", 0, 5), "not ours");
        owned.insert(&place, None);
        assert!(owned.advance("t", 0, 5) && owned.next_offset(&place) == Some(6));
        owned.insert(&place, Some(9));
        assert!(!owned.advance("t", 0, 8) && owned.advance("t", 0, 9));
        assert!(owned.remove(&place) && !owned.remove(&place) && owned.places().is_empty());
    }
}
