//! Records that Kafka would refuse for their own sake: found before they are produced, so that they wedge nothing.

use std::collections::HashMap;
use std::time::Duration;

use bus::admin::Admin;
use events::dead_letter::{self, Failure};
use events::topic::Topics;
use events::{Inbound, Record};
use tokio::time::Instant;

/// What a batch of one record adds to it (KIP-98: 61 bytes), with room to spare.
const BATCH_FRAME_BYTES: usize = 128;
/// Between looks for a topic, or for Kafka.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// The headers by which a record is found again, kept even in short.
const KEPT: [&str; 2] = [events::header::JOB_ID, events::header::MESSAGE_ID];
/// Missing topics remembered at once.
const MISSING_MAX: usize = 1_000;
/// How long a topic that was looked for in vain counts as missing without another look.
const MISSING_FOR: Duration = Duration::from_secs(10);

/// Why Kafka would not take a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// A short stable word.
    pub(crate) class: &'static str,
    /// For a person.
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn by_broker(topic: &str, cause: &str) -> Self {
        Self { class: "refused", reason: format!("Kafka refused the record for {topic}: {cause}") }
    }
}

/// What each topic takes, looked up once.
pub(crate) struct Limits {
    admin: Admin,
    topic_wait: Duration,
    largest_bytes: HashMap<String, usize>,
    missing_until: HashMap<String, Instant>,
}

impl Limits {
    pub(crate) fn new(admin: Admin, topic_wait: Duration) -> Self {
        Self { admin, topic_wait, largest_bytes: HashMap::new(), missing_until: HashMap::new() }
    }

    /// Whether its topic is known to take it. If not, [`Limits::judge`] finds out.
    pub(crate) fn fits(&self, record: &Record) -> bool {
        let needed = record.size_bytes() + BATCH_FRAME_BYTES;
        self.largest_bytes.get(&record.topic).is_some_and(|largest| needed <= *largest)
    }

    /// Asks Kafka, for as long as that takes, whether the topic is there and takes the record.
    pub(crate) async fn judge(&mut self, record: &Record) -> Result<(), Refusal> {
        let Some(largest) = self.look_up(&record.topic).await else {
            let reason = format!("topic {} does not exist; create it (`flows apply`, `migrate`)", record.topic);
            return Err(Refusal { class: "unknown-topic", reason });
        };
        let needed = record.size_bytes() + BATCH_FRAME_BYTES;
        if needed > largest {
            let topic = &record.topic;
            let reason =
                format!("too large: {needed} bytes with frames, and {topic} takes {largest} (max.message.bytes)");
            return Err(Refusal { class: "too-large", reason });
        }
        Ok(())
    }

    async fn look_up(&mut self, topic: &str) -> Option<usize> {
        let now = Instant::now();
        if self.missing_until.get(topic).is_some_and(|until| now < *until) {
            return None;
        }
        let deadline = now + self.topic_wait;
        loop {
            match self.ask(topic).await {
                Ok(Some(largest)) => {
                    self.missing_until.remove(topic);
                    self.largest_bytes.insert(topic.to_owned(), largest);
                    return Some(largest);
                }
                Ok(None) if Instant::now() >= deadline => {
                    self.largest_bytes.remove(topic);
                    if self.missing_until.len() >= MISSING_MAX {
                        self.missing_until.clear();
                    }
                    self.missing_until.insert(topic.to_owned(), Instant::now() + MISSING_FOR);
                    return None;
                }
                Ok(None) | Err(_) => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    /// The size limit; none when the topic is not there. An error: not now.
    async fn ask(&self, topic: &str) -> Result<Option<usize>, bus::Error> {
        if !self.admin.topic_exists(topic).await? {
            return Ok(None);
        }
        match self.admin.max_message_bytes(topic).await {
            Ok(largest) => Ok(Some(largest)),
            Err(bus::Error::TopicMissing(_)) => Ok(None),
            Err(error) if error.is_transient() => Err(error),
            // We may not look at the topic's configuration: then its answers to what we send have to do.
            Err(_) => Ok(Some(usize::MAX)),
        }
    }
}

/// The dead letter of a record that never reached Kafka; so its partition and offset are -1.
pub(crate) fn dead_letter(topics: &Topics, record: Record, refusal: Refusal, now_ms: i64) -> Record {
    let failure = Failure::once(refusal.class, refusal.reason, now_ms);
    dead_letter::record(topics, &inbound(record), &failure)
}

/// The same where even the dead letters' topic would not take it whole: value and key stay behind in the outbox.
pub(crate) fn dead_letter_in_short(topics: &Topics, letter: &Record, now_ms: i64) -> Record {
    let header = |name: &str| letter.header(name).map(String::from_utf8_lossy).unwrap_or_default();
    let reason = format!(
        "{}; {} bytes are too many for the dead letters' topic too, so only this notice is kept",
        header(events::header::FAILURE_REASON),
        letter.size_bytes()
    );
    let failure = Failure::once(header(events::header::FAILURE_CLASS), reason, now_ms);
    let topic = header(events::header::FAILURE_TOPIC).into_owned();
    let mut headers = letter.headers.clone();
    headers.retain(|(name, value)| KEPT.contains(&name.as_str()) && value.as_ref().is_none_or(|v| v.len() <= 256));
    dead_letter::record(topics, &inbound(Record { topic, headers, ..Record::default() }), &failure)
}

fn inbound(record: Record) -> Inbound {
    let Record { topic, key, value, headers } = record;
    Inbound { topic, partition: -1, offset: -1, timestamp_ms: 0, key, value, headers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_keeps_the_record_and_its_short_form_only_the_reason() {
        let topics = Topics::default();
        let record = Record {
            topic: "meanwhile.steps.mail".into(),
            key: Some(b"k".to_vec()),
            value: Some(vec![7; 100]),
            headers: vec![("a".into(), None)],
        };
        let refusal = Refusal { class: "too-large", reason: "too large".into() };
        let whole = dead_letter(&topics, record.clone(), refusal, 5);
        assert_eq!((&whole.key, &whole.value, &whole.headers[0]), (&record.key, &record.value, &record.headers[0]));
        let short = dead_letter_in_short(&topics, &whole, 6);
        assert_eq!((short.value.as_ref(), short.topic.as_str()), (None, "meanwhile.dead-letters"));
        let burial = dead_letter::burial(&inbound(short)).unwrap();
        assert_eq!((burial.topic.as_str(), burial.offset), ("meanwhile.steps.mail", -1));
        assert!(burial.failure.reason.starts_with("too large;"), "{}", burial.failure.reason);
    }
}
