//! Errors of transactions, sorted by the caller's reaction.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::Record;
use crate::error::Cause;

/// An error of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// Another producer with this transactional id has started. This one is a zombie: drop it.
    #[error("fenced by a newer producer with the same transactional id")]
    Fenced,
    /// This transaction cannot commit: abort it, then begin another.
    #[error("the transaction must be aborted")]
    Abortable(#[source] Cause),
    /// This transaction cannot commit because of one of its records (its size, say): without it the others may commit.
    #[error("a record was refused")]
    Refused(#[source] Cause),
    /// The producer is broken: drop it and build another.
    #[error("the transactional producer is broken")]
    Fatal(#[source] Cause),
    /// The outcome is open (interrupted, or out of time): call the same function again.
    #[error("not done yet")]
    Retriable(#[source] Cause),
}

/// A topic that did not take a record, for a reason that lies with the topic, its leader, or our rights to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// The topic's full name.
    pub topic: String,
    /// The topic does not exist.
    pub is_missing: bool,
    /// librdkafka's reason.
    pub cause: Cause,
}

impl Undelivered {
    /// None: the error does not lie with the topic, or says nothing about it.
    pub(super) fn new(error: &KafkaError, topic: &str) -> Option<Self> {
        use RDKafkaErrorCode as Code;
        let is_missing = match error.rdkafka_error_code()? {
            Code::UnknownTopic | Code::UnknownTopicOrPartition => true,
            Code::UnknownPartition
            | Code::TopicAuthorizationFailed
            | Code::MessageTimedOut
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::KafkaStorageError => false,
            _ => return None,
        };
        Some(Self { topic: topic.to_owned(), is_missing, cause: Cause::from(error.to_string()) })
    }

    /// From librdkafka's log line about a partition that the coordinator did not add to a transaction. The records come
    /// back purged then, those of the other topics too, and nothing else names the topic.
    pub(super) fn from_log(facility: &str, line: &str) -> Option<Self> {
        let (_, named) = line.split_once("Failed to add partition \"").filter(|_| facility.ends_with("ADDPARTS"))?;
        let (topic, rest) = named.split_once('"')?;
        let (_, reason) = rest.split_once("to transaction: ").filter(|_| !rest.contains("not attempted"))?;
        Some(Self { topic: topic.to_owned(), is_missing: false, cause: Cause::from(reason) })
    }
}

/// The failure of a record's delivery, sorted by its effect on the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// A newer producer has the transactional id.
    Fenced,
    /// This record will never be taken.
    RecordRefused(Cause),
    /// Anything else.
    Undelivered(Cause),
}

impl Failure {
    pub(super) fn new(error: &KafkaError, topic: &str) -> Self {
        let cause = Cause::from(format!("{error}, topic {topic}"));
        match error.rdkafka_error_code() {
            Some(code) if is_fenced(code) => Self::Fenced,
            Some(code) if is_record_refused(code) => Self::RecordRefused(cause),
            _ => Self::Undelivered(cause),
        }
    }
}

impl From<Failure> for TxError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Fenced => Self::Fenced,
            Failure::RecordRefused(cause) => Self::Refused(cause),
            Failure::Undelivered(cause) => Self::Abortable(cause),
        }
    }
}

fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
}

/// The broker, or the client in front of it, will never take this record.
fn is_record_refused(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::PolicyViolation
    )
}

pub(super) fn classify(error: KafkaError) -> TxError {
    let KafkaError::Transaction(cause) = &error else {
        let retriable = matches!(error, KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
        let cause = Cause::from(error);
        return if retriable { TxError::Retriable(cause) } else { TxError::Fatal(cause) };
    };
    let text = Cause::from(format!("{} ({})", cause.string(), cause.name()));
    if is_fenced(cause.code()) {
        TxError::Fenced
    } else if cause.is_fatal() {
        TxError::Fatal(text)
    } else if cause.txn_requires_abort() {
        TxError::Abortable(text)
    } else if cause.is_retriable() || cause.code() == RDKafkaErrorCode::OperationTimedOut {
        TxError::Retriable(text)
    } else {
        TxError::Fatal(text)
    }
}

/// The verdict on a record that did not even enter the queue.
pub(super) fn not_queued(error: &KafkaError, record: &Record) -> TxError {
    match error.rdkafka_error_code() {
        Some(code) if is_fenced(code) => TxError::Fenced,
        Some(RDKafkaErrorCode::Fatal) => TxError::Fatal(Cause::from(error.to_string())),
        code => {
            let cause = Cause::from(format!("{error}, topic {}, {} bytes", record.topic, record.size_bytes()));
            if code.is_some_and(is_record_refused) { TxError::Refused(cause) } else { TxError::Abortable(cause) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_we_may_not_write_to_is_named_by_the_librarys_log() {
        let line = |topic: &str, reason: &str| {
            format!("[thrd:main]: k:9092/1: Failed to add partition \"{topic}\" [3] to transaction: Broker: {reason}")
        };
        let found = Undelivered::from_log("ADDPARTS", &line("m.steps.q", "Topic authorization failed")).unwrap();
        assert_eq!((found.topic.as_str(), found.is_missing), ("m.steps.q", false));
        assert_eq!(found.cause, Cause::from("Broker: Topic authorization failed"));
        assert_eq!(Undelivered::from_log("ADDPARTS", &line("m.events", "Operation not attempted")), None, "another's");
        assert_eq!(Undelivered::from_log("FAIL", &line("m.steps.q", "Topic authorization failed")), None);
    }
}
