//! Finds records that Kafka would refuse before they are produced, so that they wedge nothing.

use std::time::Duration;

use bus::{Misfit, TopicLimits};
use events::dead_letter::{self, Class, Failure, Refused};
use events::topic::Topics;
use events::{Inbound, Record};

/// The pause between attempts while Kafka does not answer.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// The headers by which a record is found again, kept even in short.
const KEPT: [&str; 2] = [events::header::JOB_ID, events::header::MESSAGE_ID];

/// The refusal of a record that aborts every transaction.
pub(crate) fn by_broker(topic: &str, cause: &str) -> Refused {
    Refused::new(Class::Refused, format!("Kafka refused the record for {topic}: {cause}"))
}

/// Asks Kafka, until it answers, whether the record's topic exists and takes the record.
pub(crate) async fn check(limits: &TopicLimits, topic_wait: Duration, record: &Record) -> Result<(), Refused> {
    let (topic, bytes) = (&record.topic, record.size_bytes());
    let misfit = loop {
        match limits.check(topic, bytes, topic_wait).await {
            Ok(misfit) => break misfit,
            Err(_) => tokio::time::sleep(RETRY_INTERVAL).await,
        }
    };
    match misfit {
        None => Ok(()),
        Some(Misfit::UnknownTopic) => {
            let reason = format!("topic {topic} does not exist; create it (`flows apply`, `migrate`)");
            Err(Refused::new(Class::UnknownTopic, reason))
        }
        Some(Misfit::TooLarge { record_bytes_max }) => {
            let reason = format!(
                "too large: {bytes} bytes, and {topic} takes {record_bytes_max} without frames (max.message.bytes)"
            );
            Err(Refused::new(Class::TooLarge, reason))
        }
    }
}

/// The dead letter of a record that never reached Kafka; so its partition and offset are -1.
pub(crate) fn dead_letter(topics: &Topics, record: Record, refused: &Refused, now_ms: i64) -> Record {
    let failure = Failure::once(refused.class.as_str(), refused.reason.as_str(), now_ms);
    dead_letter::record(topics, &inbound(record), &failure)
}

/// A dead letter that its topic would not take whole, without value and key, which remain in the outbox.
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
    headers.retain(|(name, value)| KEPT.contains(&name) && value.is_none_or(|v| v.len() <= 256));
    dead_letter::record(topics, &inbound(Record { topic, headers, ..Record::default() }), &failure)
}

fn inbound(record: Record) -> Inbound {
    let Record { topic, key, value, headers } = record;
    Inbound { topic, partition: -1, offset: -1, timestamp_ms: 0, key, value, headers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::headers::Headers;

    #[test]
    fn a_dead_letter_keeps_the_record_and_its_short_form_only_the_reason() {
        let topics = Topics::default();
        let record = Record {
            topic: "meanwhile.steps.mail".into(),
            key: Some(b"k".to_vec()),
            value: Some(vec![7; 100]),
            headers: Headers::from([("a", None::<&[u8]>)]),
        };
        let refused = Refused::new(Class::TooLarge, "too large");
        let whole = dead_letter(&topics, record.clone(), &refused, 5);
        assert_eq!((&whole.key, &whole.value), (&record.key, &record.value));
        assert!(whole.headers.starts_with(&record.headers));
        let short = dead_letter_in_short(&topics, &whole, 6);
        assert_eq!((short.value.as_ref(), short.topic.as_str()), (None, "meanwhile.dead-letters"));
        let burial = dead_letter::burial(&inbound(short)).unwrap();
        assert_eq!((burial.topic.as_str(), burial.offset), ("meanwhile.steps.mail", -1));
        assert!(burial.failure.reason.starts_with("too large;"), "{}", burial.failure.reason);
    }
}
