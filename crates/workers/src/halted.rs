//! Partitions of ours that are left unread: the group has no offset for them, or one that their log does not have, or
//! the batch there cannot be read. Nobody may guess where to go on, so a person repairs the offset; all other
//! partitions are worked on meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus::admin::Admin;
use bus::{ConsumerError, TopicPartition};
use parking_lot::Mutex;
use service_kit::Readiness;
use tokio::sync::Notify;

/// The name under which readiness tells of them.
const DEPENDENCY: &str = "offsets";
/// The interval at which Kafka is asked whether an offset has been repaired.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Partitions that readiness names.
const NAMED_MAX: usize = 5;

/// The halted partitions, and the reason of each. One per process.
#[derive(Debug)]
pub(crate) struct Halted {
    admin: Admin,
    readiness: Readiness,
    places: Mutex<BTreeMap<TopicPartition, Reason>>,
    added: Notify,
}

#[derive(Debug)]
struct Reason {
    text: String,
    /// The offset of a batch that cannot be read: only one behind it is better.
    stuck_at: Option<i64>,
}

impl Halted {
    pub(crate) fn new(admin: Admin, readiness: Readiness) -> Self {
        Self { admin, readiness, places: Mutex::default(), added: Notify::new() }
    }

    /// Notes that this partition is left unread.
    pub(crate) fn halt(&self, reason: &ConsumerError) {
        let (topic, partition, stuck_at) = match reason {
            ConsumerError::OffsetOutOfRange { topic, partition, .. } | ConsumerError::NoOffset { topic, partition } => {
                (topic, partition, None)
            }
            ConsumerError::Unreadable { topic, partition, offset, .. } => (topic, partition, Some(*offset)),
            _ => return,
        };
        let place = TopicPartition::new(topic, *partition);
        let mut places = self.places.lock();
        // Readiness logs the first one.
        if !places.is_empty() && !places.contains_key(&place) {
            tracing::warn!(%reason, "another partition is left unread");
        }
        places.insert(place, Reason { text: reason.to_string(), stuck_at });
        self.tell(&places);
        drop(places);
        self.added.notify_one();
    }

    /// These partitions are read from now on, or not ours any more.
    pub(crate) fn forget(&self, gone: impl IntoIterator<Item = TopicPartition>) {
        let mut places = self.places.lock();
        let before = places.len();
        gone.into_iter().for_each(|place| drop(places.remove(&place)));
        if places.len() < before {
            self.tell(&places);
        }
    }

    fn tell(&self, places: &BTreeMap<TopicPartition, Reason>) {
        if places.is_empty() {
            return self.readiness.ready(DEPENDENCY);
        }
        let named: Vec<&str> = places.values().take(NAMED_MAX).map(|reason| reason.text.as_str()).collect();
        let (count, named) = (places.len(), named.join("; "));
        let what = "left unread until its offset is repaired (docs/runbooks/offset-out-of-range.md)";
        self.readiness.missing(DEPENDENCY, format!("{count} partition(s), each {what}: {named}"));
    }

    /// Waits until a halted partition can be read again: the group has an offset for it that its log has.
    pub(crate) async fn repaired(&self, group: &str) -> TopicPartition {
        loop {
            let added = self.added.notified();
            let places: BTreeMap<TopicPartition, Option<i64>> =
                self.places.lock().iter().map(|(place, reason)| (place.clone(), reason.stuck_at)).collect();
            if places.is_empty() {
                added.await;
                continue;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
            match self.readable(group, &places).await {
                Ok(Some(place)) => return place,
                Ok(None) => {}
                // Readiness names the partition already, and a topic may be gone.
                Err(error) => {
                    tracing::debug!(error = service_kit::error_chain(&error), "offsets cannot be looked at");
                }
            }
        }
    }

    async fn readable(
        &self,
        group: &str,
        places: &BTreeMap<TopicPartition, Option<i64>>,
    ) -> Result<Option<TopicPartition>, bus::Error> {
        let topics: BTreeSet<&String> = places.keys().map(|place| &place.topic).collect();
        let topics: Vec<String> = topics.into_iter().cloned().collect();
        let committed = self.admin.committed(group, &topics).await?;
        let logs = self.admin.offsets(&topics).await?;
        let readable = |(place, stuck_at): &(&TopicPartition, &Option<i64>)| {
            let (Some(offset), Some((start, end))) = (committed.get(place), logs.get(place)) else { return false };
            (*start..=*end).contains(offset) && stuck_at.is_none_or(|stuck_at| *offset > stuck_at)
        };
        Ok(places.iter().find(readable).map(|(place, _)| place.clone()))
    }
}
