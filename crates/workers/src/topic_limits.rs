//! Checks that a step's records fit into their topics. Asks until Kafka answers.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::admin::Admin;
use bus::{Misfit, Record, TopicPartition};
use events::limit::RECORD_OVERHEAD_BYTES;
use service_kit::retry::until_ok;
use service_kit::{CancellationToken, Ids, Readiness};

use crate::downstreams::Share;

/// The limits of topics, by name.
#[derive(Debug)]
pub(crate) struct TopicLimits {
    admin: Admin,
    limits: bus::TopicLimits,
    readiness: Readiness,
    ids: Ids,
}

impl TopicLimits {
    pub(crate) fn new(admin: Admin, readiness: Readiness, ids: Ids) -> Self {
        Self { limits: bus::TopicLimits::new(admin.clone()), admin, readiness, ids }
    }

    /// The ends of these partitions, as far as Kafka answers in time.
    pub(crate) async fn ends_of(&self, places: &[TopicPartition], timeout: Duration) -> BTreeMap<TopicPartition, i64> {
        self.admin.ends_of(places, timeout).await
    }

    /// Counts the partitions of these topics. Until Kafka answers the last count stays. `count`: its number.
    pub(crate) async fn count_partitions(&self, topics: &[String], share: &Share, count: usize) {
        let mut all = 0;
        for topic in topics {
            let count = || self.admin.partitions(topic);
            let partitions = until_ok("kafka", &self.readiness, &self.ids, &CancellationToken::new(), count).await;
            all += partitions.flatten().unwrap_or_default();
        }
        share.know_all(count, all);
    }

    /// Looks the topic up anew when it is next asked for: it may be gone.
    pub(crate) fn forget(&self, topic: &str) {
        self.limits.forget(topic);
    }

    /// True if the topic exists.
    pub(crate) async fn has(&self, topic: &str) -> bool {
        self.check(topic, 0).await != Some(Misfit::UnknownTopic)
    }

    /// The reason for which the record is too large, if it is. Some room is left, since other services carry the token
    /// on and may add headers; and `reserve_bytes` more.
    pub(crate) async fn misfit(&self, record: &Record, reserve_bytes: usize) -> Option<String> {
        let size = record.size_bytes();
        let left_bytes = RECORD_OVERHEAD_BYTES + reserve_bytes;
        match self.check(&record.topic, size + left_bytes).await? {
            // The producer waits for the topic.
            Misfit::UnknownTopic => None,
            Misfit::TooLarge { record_bytes_max } => {
                let (topic, most) = (&record.topic, record_bytes_max.saturating_sub(left_bytes));
                Some(format!("a record of {size} bytes does not fit into {topic}: at most {most}"))
            }
        }
    }

    async fn check(&self, topic: &str, record_bytes: usize) -> Option<Misfit> {
        if self.limits.is_known_to_fit(topic, record_bytes) {
            return None;
        }
        let check = || self.limits.check(topic, record_bytes, Duration::ZERO);
        // A step's records are never given up: the session's end drops this future.
        until_ok("kafka", &self.readiness, &self.ids, &CancellationToken::new(), check).await.flatten()
    }
}
