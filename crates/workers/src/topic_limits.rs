//! What a topic takes: looked up once per topic, so that no record is produced that Kafka would refuse.

use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use bus::Record;
use bus::admin::Admin;
use events::limit::{DEAD_LETTER_EXTRA_BYTES, RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES};
use service_kit::retry::Backoff;
use service_kit::{Ids, Readiness};

/// How long it is believed that a topic does not exist.
const MISSING_FOR: Duration = Duration::from_secs(2);

/// What topics take, by name.
#[derive(Debug)]
pub(crate) struct TopicLimits {
    admin: Admin,
    readiness: Readiness,
    ids: Ids,
    record_bytes_max: RwLock<HashMap<String, usize>>,
    /// Topics that were not there, and when they were looked for; one look-up at a time.
    missing: tokio::sync::Mutex<HashMap<String, Instant>>,
}

impl TopicLimits {
    pub(crate) fn new(admin: Admin, readiness: Readiness, ids: Ids) -> Self {
        let (record_bytes_max, missing) = (RwLock::default(), tokio::sync::Mutex::default());
        Self { admin, readiness, ids, record_bytes_max, missing }
    }

    /// Where the partitions of these topics end.
    pub(crate) async fn end_offsets(
        &self,
        topics: &[String],
    ) -> Result<BTreeMap<bus::TopicPartition, i64>, bus::Error> {
        self.admin.end_offsets(topics).await
    }

    /// Whether the topic is there. Asks until Kafka answers.
    pub(crate) async fn has(&self, topic: &str) -> bool {
        self.record_bytes_max(topic).await.is_some()
    }

    /// Why the record would be refused for its size, if it would.
    pub(crate) async fn misfit(&self, record: &Record) -> Option<String> {
        // A topic that is not there holds nothing back here: it is waited for when the record is produced.
        let limit = self.record_bytes_max(&record.topic).await?;
        let size = record.size_bytes();
        (size > limit).then(|| format!("a record of {size} bytes does not fit into {}: at most {limit}", record.topic))
    }

    async fn record_bytes_max(&self, topic: &str) -> Option<usize> {
        if let Some(known) = self.known(topic) {
            return Some(known);
        }
        let mut missing = self.missing.lock().await;
        if let Some(known) = self.known(topic) {
            return Some(known);
        }
        if missing.get(topic).is_some_and(|since| since.elapsed() < MISSING_FOR) {
            return None;
        }
        let (found, waited) = self.look_up(topic).await;
        if waited {
            self.readiness.ready("kafka");
        }
        match found {
            Some(limit) => {
                let mut known = self.record_bytes_max.write().unwrap_or_else(PoisonError::into_inner);
                known.insert(topic.to_owned(), limit);
                missing.remove(topic);
            }
            None => {
                missing.insert(topic.to_owned(), Instant::now());
            }
        }
        found
    }

    fn known(&self, topic: &str) -> Option<usize> {
        self.record_bytes_max.read().unwrap_or_else(PoisonError::into_inner).get(topic).copied()
    }

    /// What the topic takes, if it is there; and whether Kafka had to be waited for.
    async fn look_up(&self, topic: &str) -> (Option<usize>, bool) {
        let mut backoff = Backoff::default();
        let mut waited = false;
        loop {
            let error = match self.admin.max_message_bytes(topic).await {
                Ok(bytes) => return (Some(bytes.saturating_sub(RECORD_OVERHEAD_BYTES)), waited),
                Err(bus::Error::TopicMissing(_)) => return (None, waited),
                Err(bus::Error::Refused(reason)) => match self.admin.topic_exists(topic).await {
                    // We may not read the topic's settings: our own limits are what `migrate` sets.
                    Ok(true) => {
                        tracing::warn!(topic, reason, "the topic's size limit cannot be read; taking the default");
                        return (Some(default_for(topic)), waited);
                    }
                    Ok(false) => return (None, waited),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            waited = true;
            self.readiness.missing("kafka", error);
            tokio::time::sleep(backoff.next_delay(&self.ids)).await;
        }
    }
}

fn default_for(topic: &str) -> usize {
    let extra = if topic.ends_with(".dead-letters") { DEAD_LETTER_EXTRA_BYTES } else { 0 };
    RECORD_BYTES_MAX + extra
}
