//! Readers without a group find their partitions themselves.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;

use super::{LOOKUP_TIMEOUT, Poller};
use crate::connection::metadata;
use crate::consumer::{AssignedPartition, ConsumerError, Scope, TopicPartition};

/// The pause between looks for new partitions, and for a topic that is missing.
const DISCOVER_INTERVAL: Duration = Duration::from_secs(30);
const DISCOVER_MISSING_INTERVAL: Duration = Duration::from_millis(500);

impl Poller {
    /// Without a group: takes every partition of the topics that is not ours yet.
    pub(super) fn discover(&mut self) {
        let interval = if self.complete { DISCOVER_INTERVAL } else { DISCOVER_MISSING_INTERVAL };
        if self.looked_at.is_some_and(|at| at.elapsed() < interval) {
            return;
        }
        self.looked_at = Some(Instant::now());
        let mut found = Vec::new();
        for topic in &self.options.topics {
            match metadata(&self.consumer, Some(topic), LOOKUP_TIMEOUT) {
                Ok(metadata) => {
                    self.callbacks().connection.alive();
                    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
                    found.extend(partitions.map(|partition| TopicPartition::new(topic, partition.id())));
                }
                Err(error) => self.callbacks().connection.lost(&error.to_string()),
            }
        }
        let missing = self.options.topics.iter().find(|topic| !found.iter().any(|place| &place.topic == *topic));
        self.complete = missing.is_none();
        match missing {
            Some(topic) if !self.callbacks().connection.is_down() => {
                if !std::mem::replace(&mut self.is_missing_reported, true) {
                    self.report(ConsumerError::TopicMissing(topic.clone()));
                }
            }
            _ => self.is_missing_reported = false,
        }
        self.take_new(found);
    }

    fn take_new(&mut self, found: Vec<TopicPartition>) {
        let new: Vec<TopicPartition> = {
            let state = self.callbacks().lock();
            found.into_iter().filter(|place| !state.owned.contains(place)).collect()
        };
        if new.is_empty() {
            return;
        }
        let assigned: Option<Vec<AssignedPartition>> = match self.scope != Scope::Group {
            // Tables and tails have no group, hence nothing committed.
            true => Some(new.iter().map(uncommitted).collect()),
            false => self.callbacks().committed(&self.consumer, &new),
        };
        let Some(assigned) = assigned else { return };
        if let Some(list) = self.callbacks().take(&assigned) {
            self.starts(&assigned);
            self.check(self.consumer.incremental_assign(&list), "assign");
        }
    }

    /// Records need room in the in-process broker until they are delivered here, or committed where a group commits.
    fn starts(&self, assigned: &[AssignedPartition]) {
        let Some(reader) = &self.reader else { return };
        let state = self.callbacks().lock();
        for assigned in assigned.iter().filter(|assigned| assigned.committed.is_none()) {
            let place = assigned.place();
            reader.starts(&place, state.owned.next_offset(&place).unwrap_or(0));
        }
    }
}

fn uncommitted(place: &TopicPartition) -> AssignedPartition {
    AssignedPartition {
        topic: place.topic.clone(),
        partition: place.partition,
        committed: None,
        metadata: String::new(),
    }
}
