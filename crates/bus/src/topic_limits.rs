//! The size limits of topics, so that nothing is produced that Kafka would refuse.
//!
//! One behaviour for everybody who asks:
//! - A limit is looked up once, and again only for a record that does not fit, since it may have been raised.
//! - A missing topic is looked for again after a while, since it may be created at any moment. After a wait in vain it
//!   counts as missing for longer, so that a backlog of records for it does not wait once per record.
//! - Where we may not read a topic's settings, its limit is the one that `migrate` sets. To assume none would only move
//!   the refusal into a transaction, which it aborts.

use std::collections::HashMap;
use std::time::Duration;

use events::limit::{DEAD_LETTER_EXTRA_BYTES, RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES};
use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::Error;
use crate::admin::Admin;
use crate::error::chain;

/// The bytes that the batch of one record adds to it (KIP-98: 61 bytes), with room to spare.
const BATCH_FRAME_BYTES: usize = 128;
/// The least time for which a topic counts as missing without another look; after a wait, a multiple of that wait.
const MISSING_FOR_MIN: Duration = Duration::from_secs(2);
const MISSING_PER_WAIT: u32 = 3;
/// The pause between looks for a topic that is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Missing topics remembered at once.
const MISSING_MAX: usize = 1_000;

/// The reason for which a topic would not take a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// The topic does not exist.
    UnknownTopic,
    /// The record is too large.
    TooLarge {
        /// The size of the largest that the topic takes.
        record_bytes_max: usize,
    },
}

/// The size limits of topics, by name.
#[derive(Debug)]
pub struct TopicLimits {
    admin: Admin,
    record_bytes_max: RwLock<HashMap<String, usize>>,
    /// The end of the time for which a topic counts as missing. The lock allows one look-up at a time.
    missing_until: Mutex<HashMap<String, Instant>>,
}

impl TopicLimits {
    /// Knows no topic yet.
    pub fn new(admin: Admin) -> Self {
        Self { admin, record_bytes_max: RwLock::default(), missing_until: Mutex::default() }
    }

    /// True if the topic is known to take a record of this size. If not, [`TopicLimits::check`] finds out.
    pub fn is_known_to_fit(&self, topic: &str, record_bytes: usize) -> bool {
        self.record_bytes_max.read().get(topic).is_some_and(|max| record_bytes <= *max)
    }

    /// Looks the topic up anew when it is next asked for: it may be gone.
    pub fn forget(&self, topic: &str) {
        self.record_bytes_max.write().remove(topic);
    }

    /// The reason for which the topic would not take a record of this size, if there is one. Waits for a missing topic.
    ///
    /// # Errors
    /// Kafka does not answer: nothing is known about the topic.
    pub async fn check(&self, topic: &str, record_bytes: usize, wait: Duration) -> Result<Option<Misfit>, Error> {
        if self.is_known_to_fit(topic, record_bytes) {
            return Ok(None);
        }
        let mut missing_until = self.missing_until.lock().await;
        if self.is_known_to_fit(topic, record_bytes) {
            return Ok(None);
        }
        let now = Instant::now();
        if missing_until.get(topic).is_some_and(|until| now < *until) {
            return Ok(Some(Misfit::UnknownTopic));
        }
        loop {
            if let Some(record_bytes_max) = self.look_up(topic).await? {
                self.record_bytes_max.write().insert(topic.to_owned(), record_bytes_max);
                missing_until.remove(topic);
                return Ok((record_bytes > record_bytes_max).then_some(Misfit::TooLarge { record_bytes_max }));
            }
            if now.elapsed() >= wait {
                break;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.record_bytes_max.write().remove(topic);
        if missing_until.len() >= MISSING_MAX {
            missing_until.clear();
        }
        missing_until.insert(topic.to_owned(), Instant::now() + MISSING_FOR_MIN.max(wait * MISSING_PER_WAIT));
        Ok(Some(Misfit::UnknownTopic))
    }

    /// The size in bytes of the largest record that the topic takes; none when it does not exist.
    async fn look_up(&self, topic: &str) -> Result<Option<usize>, Error> {
        if !self.admin.topic_exists(topic).await? {
            return Ok(None);
        }
        let batch_bytes_max = match self.admin.max_message_bytes(topic).await {
            Ok(found) => found,
            Err(Error::TopicMissing(_)) => return Ok(None),
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(topic, reason, "the topic's size limit cannot be read; taking the default");
                default_for(topic)
            }
        };
        Ok(Some(batch_bytes_max.saturating_sub(BATCH_FRAME_BYTES)))
    }
}

fn default_for(topic: &str) -> usize {
    let extra = if topic.ends_with(".dead-letters") { DEAD_LETTER_EXTRA_BYTES } else { 0 };
    RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES + extra
}
