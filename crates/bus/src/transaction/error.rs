//! Why a transaction did not go on, sorted by what to do about it.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::Record;
use crate::error::Cause;

/// Why a transaction did not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// Another producer with this transactional id has started. This one is a zombie: drop it.
    #[error("fenced by a newer producer with the same transactional id")]
    Fenced,
    /// This transaction cannot commit: abort it, then begin another.
    #[error("the transaction must be aborted")]
    Abortable(#[source] Cause),
    /// The same, and one of its records is to blame (its size, say): without it the others may commit.
    #[error("a record was refused")]
    Refused(#[source] Cause),
    /// The producer is broken: drop it and build another.
    #[error("the transactional producer is broken")]
    Fatal(#[source] Cause),
    /// The outcome is open (interrupted, or out of time): call the same function again.
    #[error("not done yet")]
    Retriable(#[source] Cause),
}

/// Why a record was not delivered, by what it says about the transaction.
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
