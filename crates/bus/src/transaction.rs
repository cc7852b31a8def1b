//! The transactional producer: what is sent between `begin` and `commit` becomes visible at once, with its offsets.
//!
//! Blocking; give it a thread of its own. After `Fenced` or `Fatal` drop it and build another.
//! Invariant: `commit` never calls librdkafka's flush with records in flight (rust-rdkafka would sleep 100 ms slices).

mod deliveries;
mod error;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use self::deliveries::Deliveries;
pub use self::error::TxError;
use self::error::{Failure, classify, not_queued};
use crate::consumer::GroupMetadata;
use crate::error::Cause;
use crate::offset_commit::OffsetCommit;
use crate::{Error, Record, Settings, producer};

/// One request to the coordinator may take so long before it is asked again.
const REQUEST_SLICE: Duration = Duration::from_secs(2);
/// An abort may take so long before the producer is given up: its successor ends the transaction.
const ABORT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between looks for room in the local queue.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(2);

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
        let context = Deliveries::new(settings.in_process.clone());
        let producer = ThreadedProducer::from_config_and_context(&config, context)?;
        Ok(Self {
            producer,
            brokers: settings.brokers.clone(),
            interrupt: Interrupt::default(),
            in_process_offsets: Vec::new(),
        })
    }

    /// Ends this producer's waiting from outside.
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
                let error = if full { TxError::Retriable(error.into()) } else { not_queued(&error, record) };
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
        let list = offset_list(offsets).map_err(|error| TxError::Abortable(error.into()))?;
        self.until(None, |producer| producer.send_offsets_to_transaction(&list, group, REQUEST_SLICE))
    }

    /// Commits. After a time-out it asks again, without end: the outcome is never guessed.
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

    /// The same. Returns why a record was refused, if that spoilt the transaction: other calls may have failed with
    /// `Abortable` before the record's own failure arrived.
    pub fn abort_with_cause(&mut self) -> Result<Option<Cause>, TxError> {
        self.in_process_offsets.clear();
        let deadline = Some(Instant::now() + ABORT_TIMEOUT);
        // When the broker has timed the transaction out first, librdkafka may retry the abort without end.
        let aborted = self.until(deadline, |producer| producer.abort_transaction(REQUEST_SLICE));
        aborted.map_err(|error| match error {
            TxError::Retriable(cause) if !self.interrupt.is_raised() => {
                TxError::Fatal(format!("no abort: {cause}").into())
            }
            other => other,
        })?;
        // Purged records come back as failures of the old transaction; they must not spoil the next one.
        let failure = self.deliveries().wait_for_all();
        self.deliveries().clear_failure();
        match failure {
            Some(Failure::RecordRefused(cause)) => Ok(Some(cause)),
            Some(Failure::Fenced | Failure::Undelivered(_)) | None => Ok(None),
        }
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
        failure.map_or(Ok(()), |failure| Err(failure.into()))
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
