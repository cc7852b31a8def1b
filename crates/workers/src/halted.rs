//! Partitions of ours that are left unread: the group has no offset for them, or one that their log does not have.
//! Nobody may guess where to go on, so a person repairs the offset; all other partitions are worked on meanwhile.

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
    places: Mutex<BTreeMap<TopicPartition, String>>,
    added: Notify,
}

impl Halted {
    pub(crate) fn new(admin: Admin, readiness: Readiness) -> Self {
        Self { admin, readiness, places: Mutex::default(), added: Notify::new() }
    }

    /// Notes that this partition is left unread.
    pub(crate) fn halt(&self, reason: &ConsumerError) {
        let (ConsumerError::OffsetOutOfRange { topic, partition, .. } | ConsumerError::NoOffset { topic, partition }) =
            reason
        else {
            return;
        };
        let place = TopicPartition::new(topic, *partition);
        let mut places = self.places.lock();
        // Readiness logs the first one.
        if !places.is_empty() && !places.contains_key(&place) {
            tracing::warn!(%reason, "another partition is left unread");
        }
        places.insert(place, reason.to_string());
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

    fn tell(&self, places: &BTreeMap<TopicPartition, String>) {
        if places.is_empty() {
            return self.readiness.ready(DEPENDENCY);
        }
        let named: Vec<&str> = places.values().take(NAMED_MAX).map(String::as_str).collect();
        let (count, named) = (places.len(), named.join("; "));
        let what = "left unread until its offset is repaired (docs/runbooks/offset-out-of-range.md)";
        self.readiness.missing(DEPENDENCY, format!("{count} partition(s), each {what}: {named}"));
    }

    /// Waits until a halted partition can be read again: the group has an offset for it that its log has.
    pub(crate) async fn repaired(&self, group: &str) -> TopicPartition {
        loop {
            let added = self.added.notified();
            let places: BTreeSet<TopicPartition> = self.places.lock().keys().cloned().collect();
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
        places: &BTreeSet<TopicPartition>,
    ) -> Result<Option<TopicPartition>, bus::Error> {
        let topics: BTreeSet<&String> = places.iter().map(|place| &place.topic).collect();
        let topics: Vec<String> = topics.into_iter().cloned().collect();
        let committed = self.admin.committed(group, &topics).await?;
        let logs = self.admin.offsets(&topics).await?;
        let readable = |place: &&TopicPartition| {
            let (Some(offset), Some((start, end))) = (committed.get(place), logs.get(place)) else { return false };
            (*start..=*end).contains(offset)
        };
        Ok(places.iter().find(readable).cloned())
    }
}
