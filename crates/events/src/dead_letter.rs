//! Records that no service could read or handle: key, value and headers byte for byte, the failure in further headers.

use crate::header;
use crate::limit::{FAILURE_CLASS_BYTES_MAX, FAILURE_REASON_BYTES_MAX};
use crate::record::{Inbound, Record};
use crate::topic::Topics;
use crate::trace::Trace;
use flow::time::{parse_rfc3339, rfc3339};

/// The classes of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// It cannot be decoded.
    Unreadable,
    /// This version does not support it.
    Unsupported,
    /// It can be read but not stored.
    NotStorable,
    /// It is not a command.
    InvalidCommand,
    /// Its key cannot be an ordering key.
    InvalidKey,
    /// It names a flow that is not known.
    UnknownFlow,
    /// Its input is not what the flow's schema wants.
    SchemaViolation,
    /// Its idempotency key was used for another command.
    IdReused,
    /// Its topic does not exist.
    UnknownTopic,
    /// It is larger than its topic takes.
    TooLarge,
    /// The broker refused it.
    Refused,
    /// Code panicked over it.
    Panicked,
}

impl Class {
    /// Every class of this version.
    pub const ALL: [Self; 12] = [
        Self::Unreadable,
        Self::Unsupported,
        Self::NotStorable,
        Self::InvalidCommand,
        Self::InvalidKey,
        Self::UnknownFlow,
        Self::SchemaViolation,
        Self::IdReused,
        Self::UnknownTopic,
        Self::TooLarge,
        Self::Refused,
        Self::Panicked,
    ];

    /// The word in the header `meanwhile-failure-class`, in metrics and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Unsupported => "unsupported",
            Self::NotStorable => "not-storable",
            Self::InvalidCommand => "invalid-command",
            Self::InvalidKey => "invalid-key",
            Self::UnknownFlow => "unknown-flow",
            Self::SchemaViolation => "schema-violation",
            Self::IdReused => "id-reused",
            Self::UnknownTopic => "unknown-topic",
            Self::TooLarge => "too-large",
            Self::Refused => "refused",
            Self::Panicked => "panicked",
        }
    }
}

/// The refusal of a record, which becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The kind of the refusal.
    pub class: Class,
    /// The reason, for a person.
    pub reason: String,
}

impl Refused {
    /// A refusal of this class.
    pub fn new(class: Class, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into() }
    }
}

/// A refused record's place, and its refusal: for the log, once the dead letter is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRecord {
    /// The topic in which it was read.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The refusal, with class and reason.
    pub refused: Refused,
}

impl RefusedRecord {
    /// This record, refused.
    pub fn new(record: &Inbound, refused: Refused) -> Self {
        Self { topic: record.topic.clone(), partition: record.partition, offset: record.offset, refused }
    }
}

/// The failure that made a record a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason, for a person. Cut to [`FAILURE_REASON_BYTES_MAX`].
    pub reason: String,
    /// The class as a short stable word: `unreadable`, `invalid-command`, `unknown-flow`, `too-large`, ...
    pub class: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The time of the first attempt, in milliseconds since the Unix epoch.
    pub first_at_ms: i64,
    /// The time of the last attempt, in milliseconds since the Unix epoch.
    pub last_at_ms: i64,
}

impl Failure {
    /// The failure of a record that was tried once, now.
    pub fn once(class: impl Into<String>, reason: impl Into<String>, now_ms: i64) -> Self {
        Self { reason: reason.into(), class: class.into(), attempts: 1, first_at_ms: now_ms, last_at_ms: now_ms }
    }
}

/// The content of a dead letter's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Burial {
    /// The failure that made it a dead letter.
    pub failure: Failure,
    /// The topic in which it was read.
    pub topic: String,
    /// The partition in which it was read.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The number of redrives before.
    pub redrives: u32,
}

/// The dead letter of a record. The original's headers come first, untouched; ours follow (the last one of a name
/// counts).
pub fn record(topics: &Topics, original: &Inbound, failure: &Failure) -> Record {
    let redrives = redrives_of(original);
    let mut headers = original.headers.clone();
    headers.push_text(header::FAILURE_REASON, cut(&failure.reason, FAILURE_REASON_BYTES_MAX));
    headers.push_text(header::FAILURE_CLASS, cut(&failure.class, FAILURE_CLASS_BYTES_MAX));
    headers.push_text(header::FAILURE_ATTEMPTS, failure.attempts);
    headers.push_text(header::FAILURE_FIRST_AT, rfc3339(failure.first_at_ms));
    headers.push_text(header::FAILURE_LAST_AT, rfc3339(failure.last_at_ms));
    headers.push_text(header::FAILURE_TOPIC, &original.topic);
    headers.push_text(header::FAILURE_PARTITION, original.partition);
    headers.push_text(header::FAILURE_OFFSET, original.offset);
    headers.push_text(header::FAILURE_REDRIVES, redrives);
    Record { topic: topics.dead_letters(), key: original.key.clone(), value: original.value.clone(), headers }
}

/// Reads the headers of a dead letter. None if one is missing: another producer wrote to the topic.
pub fn burial(dead_letter: &Inbound) -> Option<Burial> {
    let text = |name: &str| dead_letter.header_text(name);
    Some(Burial {
        failure: Failure {
            reason: text(header::FAILURE_REASON)?.to_owned(),
            class: text(header::FAILURE_CLASS)?.to_owned(),
            attempts: text(header::FAILURE_ATTEMPTS)?.parse().ok()?,
            first_at_ms: parse_rfc3339(text(header::FAILURE_FIRST_AT)?)?,
            last_at_ms: parse_rfc3339(text(header::FAILURE_LAST_AT)?)?,
        },
        topic: text(header::FAILURE_TOPIC)?.to_owned(),
        partition: text(header::FAILURE_PARTITION)?.parse().ok()?,
        offset: text(header::FAILURE_OFFSET)?.parse().ok()?,
        redrives: redrives_of(dead_letter),
    })
}

/// The record that goes back to where the dead letter failed: its failure taken off, the redrive counted, under a new
/// trace. None when it is no dead letter of ours.
pub fn redrive(dead_letter: &Inbound, trace: &Trace) -> Option<Record> {
    let burial = burial(dead_letter)?;
    let traced = |name: &str| name == header::TRACEPARENT || name == header::TRACESTATE;
    let mut headers = dead_letter.headers.clone();
    headers.retain(|(name, _)| !name.starts_with(header::FAILURE_PREFIX) && !traced(name));
    trace.write(&mut headers);
    headers.push_text(header::FAILURE_REDRIVES, burial.redrives.saturating_add(1));
    Some(Record { topic: burial.topic, key: dead_letter.key.clone(), value: dead_letter.value.clone(), headers })
}

fn redrives_of(record: &Inbound) -> u32 {
    record.header_text(header::FAILURE_REDRIVES).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The longest beginning of at most so many bytes that ends between two characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max { text } else { &text[..text.floor_char_boundary(bytes_max)] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Headers;
    use crate::limit::DEAD_LETTER_EXTRA_BYTES;
    use proptest::prelude::*;

    fn again(record: &Record) -> Inbound {
        let Record { topic, key, value, headers } = record.clone();
        Inbound { topic, partition: 2, offset: 40, timestamp_ms: 0, key, value, headers }
    }

    fn trace() -> Trace {
        Trace::new("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap())
    }

    fn headers() -> impl Strategy<Value = Headers> {
        let name = prop_oneof![".{0,8}", Just(header::FAILURE_REASON.to_owned()), Just(header::TRACEPARENT.to_owned())];
        let all = prop::collection::vec((name, prop::option::of(prop::collection::vec(any::<u8>(), 0..9))), 0..6);
        all.prop_map(Headers::from_iter)
    }

    fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop::option::of(prop::collection::vec(any::<u8>(), 0..20))
    }

    proptest! {
        #[test]
        fn a_dead_letter_keeps_the_original_byte_for_byte_and_says_why(
            key in bytes(), value in bytes(), headers in headers(), reason in ".{0,40}", at in 0..4_000_000_000_000_i64,
        ) {
            let topic = "meanwhile.events".to_owned();
            let original = Inbound { topic, partition: 3, offset: 17, timestamp_ms: 5, key, value, headers };
            let failure =
                Failure { attempts: 2, last_at_ms: at + 1, ..Failure::once("unreadable", reason, at) };
            let letter = record(&Topics::default(), &original, &failure);
            prop_assert_eq!(&letter.topic, "meanwhile.dead-letters");
            prop_assert_eq!((&letter.key, &letter.value), (&original.key, &original.value));
            prop_assert!(letter.headers.starts_with(&original.headers));
            let burial = burial(&again(&letter)).unwrap();
            prop_assert_eq!(burial.failure, failure);
            prop_assert_eq!((burial.topic, burial.partition, burial.offset), (original.topic, 3, 17));
        }
    }

    #[test]
    fn redrives_are_counted_on_from_one_burial_to_the_next() {
        let mut record = Record { topic: "meanwhile.commands".into(), value: Some(b"x".to_vec()), ..Record::default() };
        record.headers = Headers::from([("a", None), (header::TRACEPARENT, Some("old"))]);
        for redrives in 0..3 {
            let letter = again(&super::record(&Topics::default(), &again(&record), &Failure::once("c", "r", 0)));
            assert_eq!(burial(&letter).unwrap().redrives, redrives);
            record = redrive(&letter, &trace()).unwrap();
            assert_eq!((record.topic.as_str(), record.value.as_deref()), ("meanwhile.commands", Some(&b"x"[..])));
            let ours = record.headers.iter().filter(|(name, _)| name.starts_with(header::FAILURE_PREFIX)).count();
            let traces: Vec<_> = record.headers.iter().filter(|(name, _)| *name == header::TRACEPARENT).collect();
            assert_eq!((ours, traces.len(), record.headers.iter().next()), (1, 1, Some(("a", None))));
            assert_eq!(Trace::from_headers(&record.headers), Some(trace()));
        }
    }

    #[test]
    fn a_record_that_is_no_dead_letter_is_not_sent_anywhere() {
        assert_eq!(redrive(&Inbound::default(), &trace()), None);
    }

    #[test]
    fn the_longest_failure_fits_into_the_room_that_dead_letters_have() {
        let original = Inbound { topic: "t".repeat(249), offset: i64::MAX, partition: i32::MAX, ..Inbound::default() };
        let long = "é".repeat(1_000_000);
        let failure = Failure { attempts: u32::MAX, ..Failure::once(long.clone(), long, i64::MAX) };
        let letter = record(&Topics::default(), &original, &failure);
        assert!(letter.size_bytes() - original.size_bytes() < DEAD_LETTER_EXTRA_BYTES);
        assert!(burial(&again(&letter)).unwrap().failure.reason.ends_with('é'));
    }
}
