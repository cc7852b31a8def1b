//! Whether a step's records fit into their topics, asked until Kafka answers.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::admin::Admin;
use bus::{Misfit, Record};
use events::limit::RECORD_OVERHEAD_BYTES;
use service_kit::retry::until_ok;
use service_kit::{CancellationToken, Ids, Readiness};

/// What topics take, by name.
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

    /// Where the partitions of these topics end.
    pub(crate) async fn end_offsets(
        &self,
        topics: &[String],
    ) -> Result<BTreeMap<bus::TopicPartition, i64>, bus::Error> {
        self.admin.end_offsets(topics).await
    }

    /// Whether the topic exists.
    pub(crate) async fn has(&self, topic: &str) -> bool {
        self.check(topic, 0).await != Some(Misfit::UnknownTopic)
    }

    /// Why the record would be refused for its size, if it would. It leaves some room, since others carry the token on
    /// and may add headers.
    pub(crate) async fn misfit(&self, record: &Record) -> Option<String> {
        let size = record.size_bytes();
        match self.check(&record.topic, size + RECORD_OVERHEAD_BYTES).await? {
            // It is waited for when the record is produced.
            Misfit::UnknownTopic => None,
            Misfit::TooLarge { record_bytes_max } => {
                let (topic, most) = (&record.topic, record_bytes_max.saturating_sub(RECORD_OVERHEAD_BYTES));
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
