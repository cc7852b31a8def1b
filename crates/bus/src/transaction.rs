//! The transactional producer: what is sent between `begin` and `commit` becomes visible at once, with its offsets.
//!
//! Blocking; give it a thread of its own. After `Fenced` or `Fatal` drop it and build another.
//! Invariant: `commit` never calls librdkafka's flush with records in flight (rust-rdkafka would sleep 100 ms slices).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::connection::{self, Connection};
use crate::consumer::GroupMetadata;
use crate::in_process::InProcess;
use crate::offset_commit::OffsetCommit;
use crate::{Error, Record, Settings, producer};

/// How long one request to the coordinator may take before it is asked again.
const REQUEST_SLICE: Duration = Duration::from_secs(2);
/// How long an abort may take before the producer is given up: its successor ends what it began.
const ABORT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long to wait for room in the local queue before looking again.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(2);

/// Why a transaction did not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// Another producer with this transactional id has started. This one is a zombie: drop it.
    #[error("fenced by a newer producer with the same transactional id")]
    Fenced,
    /// This transaction cannot commit: abort it, then begin another.
    #[error("the transaction must be aborted: {0}")]
    Abortable(String),
    /// The same, and one of its records is to blame (its size, say): without it the others may commit.
    #[error("a record was refused: {0}")]
    Refused(String),
    /// The producer is of no more use: drop it and build another.
    #[error("the transactional producer is broken: {0}")]
    Fatal(String),
    /// The outcome is open (interrupted, or out of time): call the same function again.
    #[error("not done yet: {0}")]
    Retriable(String),
}

/// Ends the waiting of a `TransactionalProducer` on another thread.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on every call that would wait for Kafka returns `Retriable` instead.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One transactional id's producer. Its calls block.
pub struct TransactionalProducer {
    producer: ThreadedProducer<Deliveries>,
    brokers: String,
    interrupt: Interrupt,
    /// Offsets of the running transaction, by group, that the in-process broker would drop.
    in_process_offsets: Vec<(String, OffsetCommit)>,
}

impl std::fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionalProducer").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl TransactionalProducer {
    /// Connects in the background; fails only for settings that make no client. Call `init` next.
    pub fn new(settings: &Settings, transactional_id: &str, transaction_timeout: Duration) -> Result<Self, Error> {
        let timeout_ms = transaction_timeout.as_millis().to_string();
        let config = settings.producer_config(&[
            ("transactional.id", transactional_id),
            ("transaction.timeout.ms", &timeout_ms),
            ("message.timeout.ms", &timeout_ms),
            // Offsets right after a commit meet CONCURRENT_TRANSACTIONS and are retried after this; default 100.
            ("retry.backoff.ms", "1"),
        ]);
        let context = Deliveries { in_process: settings.in_process.clone(), ..Deliveries::default() };
        let producer = ThreadedProducer::from_config_and_context(&config, context)?;
        Ok(Self {
            producer,
            brokers: settings.brokers.clone(),
            interrupt: Interrupt::default(),
            in_process_offsets: Vec::new(),
        })
    }

    /// What ends this producer's waiting from outside.
    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// Takes over the transactional id: ends a predecessor's open transaction and fences it. Waits at most `timeout`.
    pub fn init(&mut self, timeout: Duration) -> Result<(), TxError> {
        let deadline = Instant::now() + timeout;
        self.until(Some(deadline), |producer| producer.init_transactions(REQUEST_SLICE))
    }

    /// Begins a transaction. Local: the broker learns of it with the first record.
    pub fn begin(&mut self) -> Result<(), TxError> {
        self.deliveries().clear_failure();
        self.in_process_offsets.clear();
        self.producer.begin_transaction().map_err(classify)
    }

    /// Puts a record into the running transaction. Waits only while the local queue is full.
    pub fn send(&mut self, record: &Record) -> Result<(), TxError> {
        let mut base = BaseRecord::<[u8], [u8]>::to(&record.topic);
        base.key = record.key.as_deref();
        base.payload = record.value.as_deref();
        base.headers = producer::headers(record);
        self.deliveries().sent();
        loop {
            let (error, returned) = match self.producer.send(base) {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !full || self.interrupt.is_raised() {
                let error = if full { TxError::Retriable(error.to_string()) } else { refused(&error, record) };
                self.deliveries().not_sent(&error);
                return Err(error);
            }
            self.deliveries().wait_for_one(QUEUE_FULL_WAIT);
            base = returned;
        }
    }

    /// Puts consumed offsets into the running transaction.
    pub fn send_offsets(&mut self, offsets: &[OffsetCommit], group: &GroupMetadata) -> Result<(), TxError> {
        let group = match group {
            GroupMetadata::InProcess { group } => {
                self.in_process_offsets.extend(offsets.iter().map(|offset| (group.clone(), offset.clone())));
                return Ok(());
            }
            GroupMetadata::Kafka(metadata) => metadata,
        };
        let list = offset_list(offsets).map_err(|error| TxError::Abortable(error.to_string()))?;
        self.until(None, |producer| producer.send_offsets_to_transaction(&list, group, REQUEST_SLICE))
    }

    /// Commits. Asks again after a time-out for as long as it takes: the outcome is never guessed.
    pub fn commit(&mut self) -> Result<(), TxError> {
        self.await_deliveries()?;
        self.until(None, |producer| producer.commit_transaction(REQUEST_SLICE))?;
        let offsets = std::mem::take(&mut self.in_process_offsets);
        if let Some(in_process) = &self.deliveries().in_process {
            offsets.into_iter().for_each(|(group, offset)| in_process.commit(&group, vec![offset]));
        }
        Ok(())
    }

    /// Gives the running transaction up; its records stay unseen by `read_committed`.
    pub fn abort(&mut self) -> Result<(), TxError> {
        self.abort_with_cause().map(drop)
    }

    /// The same; says why a record was refused, if that is what spoilt the transaction. Other calls may have failed
    /// with `Abortable` before the record's own failure was heard of.
    pub fn abort_with_cause(&mut self) -> Result<Option<String>, TxError> {
        self.in_process_offsets.clear();
        let deadline = Some(Instant::now() + ABORT_TIMEOUT);
        // librdkafka may try for ever when the broker has ended the transaction first, for its time was over.
        let aborted = self.until(deadline, |producer| producer.abort_transaction(REQUEST_SLICE));
        aborted.map_err(|error| match error {
            TxError::Retriable(cause) if !self.interrupt.is_raised() => TxError::Fatal(format!("no abort: {cause}")),
            other => other,
        })?;
        // Purged records come back as failures of the old transaction; they must not spoil the next one.
        let failure = self.deliveries().wait_for_all();
        self.deliveries().clear_failure();
        Ok(failure.filter(|failure| failure.record_refused).map(|failure| failure.cause))
    }

    fn deliveries(&self) -> &Deliveries {
        self.producer.client().context()
    }

    /// Waits for every record's acknowledgement, or for the first failure: the others of its transaction are lost with
    /// it. Bounded: `message.timeout.ms` fails what is not acknowledged.
    fn await_deliveries(&self) -> Result<(), TxError> {
        let failure = self.deliveries().wait_for_all_or_failure();
        while failure.is_none() && self.producer.in_flight_count() > 0 {
            // The last callback has run; the event that carried it is being freed: microseconds.
            std::thread::yield_now();
        }
        match failure {
            None => Ok(()),
            Some(Failure { fenced: true, .. }) => Err(TxError::Fenced),
            Some(Failure { record_refused: true, cause, .. }) => Err(TxError::Refused(cause)),
            Some(failure) => Err(TxError::Abortable(failure.cause)),
        }
    }

    /// Calls again while the answer is "retriable", until the deadline or the interrupt.
    fn until(
        &self,
        deadline: Option<Instant>,
        call: impl Fn(&ThreadedProducer<Deliveries>) -> Result<(), KafkaError>,
    ) -> Result<(), TxError> {
        loop {
            let Err(error) = call(&self.producer) else {
                self.deliveries().connection.alive();
                return Ok(());
            };
            match classify(error) {
                TxError::Retriable(_)
                    if !self.interrupt.is_raised() && deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
                other => return Err(other),
            }
        }
    }
}

fn offset_list(offsets: &[OffsetCommit]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for offset in offsets {
        let mut element = list.add_partition(&offset.topic, offset.partition);
        element.set_offset(Offset::Offset(offset.next_offset))?;
        if let Some(metadata) = &offset.metadata {
            element.set_metadata(metadata);
        }
    }
    Ok(list)
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

fn classify(error: KafkaError) -> TxError {
    let KafkaError::Transaction(cause) = &error else {
        let retriable = matches!(error, KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
        return if retriable { TxError::Retriable(error.to_string()) } else { TxError::Fatal(error.to_string()) };
    };
    let text = format!("{} ({})", cause.string(), cause.name());
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

/// A record that did not even enter the queue.
fn refused(error: &KafkaError, record: &Record) -> TxError {
    match error.rdkafka_error_code() {
        Some(code) if is_fenced(code) => TxError::Fenced,
        Some(RDKafkaErrorCode::Fatal) => TxError::Fatal(error.to_string()),
        code => {
            let text = format!("{error}, topic {}, {} bytes", record.topic, record.size_bytes());
            if code.is_some_and(is_record_refused) { TxError::Refused(text) } else { TxError::Abortable(text) }
        }
    }
}

/// Counts what is on its way, and keeps the first failure.
#[derive(Debug)]
struct Deliveries {
    connection: Connection,
    /// Counts what it holds unread.
    in_process: Option<Arc<InProcess>>,
    state: Mutex<InFlight>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct InFlight {
    count: u64,
    failure: Option<Failure>,
}

#[derive(Debug, Clone)]
struct Failure {
    fenced: bool,
    record_refused: bool,
    cause: String,
}

impl Default for Deliveries {
    fn default() -> Self {
        let connection = Connection::new("transactional producer");
        Self { connection, in_process: None, state: Mutex::default(), changed: Condvar::new() }
    }
}

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, InFlight> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self) {
        self.lock().count += 1;
    }

    /// What is refused here has failed as if the broker had refused it: an abort tells of both.
    fn not_sent(&self, error: &TxError) {
        let mut state = self.lock();
        state.count -= 1;
        if let (TxError::Refused(cause), None) = (error, &state.failure) {
            state.failure = Some(Failure { fenced: false, record_refused: true, cause: cause.clone() });
        }
    }

    fn clear_failure(&self) {
        self.lock().failure = None;
    }

    fn wait_for_one(&self, timeout: Duration) {
        let waited = self.changed.wait_timeout(self.lock(), timeout);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn wait_for_all_or_failure(&self) -> Option<Failure> {
        let state = self.changed.wait_while(self.lock(), |state| state.count > 0 && state.failure.is_none());
        state.unwrap_or_else(PoisonError::into_inner).failure.clone()
    }

    fn wait_for_all(&self) -> Option<Failure> {
        let state = self.changed.wait_while(self.lock(), |state| state.count > 0);
        state.unwrap_or_else(PoisonError::into_inner).failure.clone()
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        connection::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.connection.report(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let (Some(in_process), Ok(message)) = (&self.in_process, result) {
            let bytes = producer::size_bytes(message);
            in_process.wrote(message.topic(), message.partition(), message.offset(), bytes);
        }
        let mut state = self.lock();
        state.count -= 1;
        if let Err((error, message)) = result
            && state.failure.is_none()
        {
            let code = error.rdkafka_error_code();
            let cause = format!("{error}, topic {}", message.topic());
            state.failure = Some(Failure {
                fenced: code.is_some_and(is_fenced),
                record_refused: code.is_some_and(is_record_refused),
                cause,
            });
        }
        if state.count == 0 || result.is_err() {
            self.changed.notify_all();
        }
    }
}
