//! The transactional producer: what is sent between `begin` and `commit` becomes visible at once, with its offsets.
//!
//! Blocking; give it a thread of its own. After `Fenced` or `Fatal` drop it and build another.
//! Invariant: `commit` never calls librdkafka's flush with records in flight (rust-rdkafka would sleep 100 ms slices).

mod deliveries;
mod error;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use self::deliveries::Deliveries;
use self::error::{Failure, classify, not_queued};
pub use self::error::{TxError, Undelivered};
use crate::consumer::GroupMetadata;
use crate::error::{Cause, chain};
use crate::offset_commit::OffsetCommit;
use crate::{Error, Record, Settings, producer};

/// The time limit of one request to the coordinator, before it is asked again.
const REQUEST_SLICE: Duration = Duration::from_secs(2);
/// The time limit of an abort. After it the producer is given up, and its successor ends the transaction.
const ABORT_TIMEOUT: Duration = Duration::from_secs(15);
/// The time without any answer after which the outcome of a transaction is left to the next producer. Kafka has aborted
/// what was not yet decided by then.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// The time limit of a look at a topic.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause between looks for room in the local queue.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(2);

/// A topic as Kafka shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicLook {
    /// It does not exist.
    Missing,
    /// A partition has no leader, or Kafka does not answer.
    Unfit,
    /// Each partition has a leader.
    Fit,
}

/// Ends the waiting of a `TransactionalProducer` on another thread.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Makes every call that would wait for Kafka return `Retriable` from now on.
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
    settings: Settings,
    transactional_id: String,
    transaction_timeout: Duration,
    /// The connections that had been lost when the transactional id was taken over.
    losses: u64,
    interrupt: Interrupt,
    /// Offsets of the running transaction, by group, that the in-process broker would drop.
    in_process_offsets: Vec<(String, OffsetCommit)>,
}

impl std::fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionalProducer")
            .field("transactional_id", &self.transactional_id)
            .finish_non_exhaustive()
    }
}

impl TransactionalProducer {
    /// Connects in the background; fails only for settings that make no client. Call `init` next.
    pub fn new(settings: &Settings, transactional_id: &str, transaction_timeout: Duration) -> Result<Self, Error> {
        Ok(Self {
            producer: client(settings, transactional_id, transaction_timeout)?,
            settings: settings.clone(),
            transactional_id: transactional_id.to_owned(),
            transaction_timeout,
            losses: 0,
            interrupt: Interrupt::default(),
            in_process_offsets: Vec::new(),
        })
    }

    /// True when a connection was lost since the transactional id was taken over, or no broker is known any more (see
    /// `Connection::is_silent_for`). A request that was under way then, and was sent again, may still reach the broker:
    /// it would end or enter a later transaction (librdkafka does not speak KIP-890). So the id must be taken over anew
    /// before another transaction begins: by [`Self::renew`], or by dropping this producer. The broker refuses what is
    /// late then.
    pub fn was_disturbed(&self) -> bool {
        self.deliveries().connection.losses() != self.losses
    }

    /// Takes the transactional id over anew, with new connections. Ends an open transaction. Not where taking over may
    /// fence a successor that has to live: there begin with everything anew.
    pub fn renew(&mut self, timeout: Duration) -> Result<(), TxError> {
        let made = client(&self.settings, &self.transactional_id, self.transaction_timeout);
        self.producer = made.map_err(|error| TxError::Fatal(chain(&error).into()))?;
        // Until `init` has succeeded.
        self.losses = u64::MAX;
        self.init(timeout)
    }

    /// Ends this producer's waiting from outside.
    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// Takes over the transactional id: ends a predecessor's open transaction and fences it. Waits at most `timeout`.
    pub fn init(&mut self, timeout: Duration) -> Result<(), TxError> {
        let deadline = Instant::now() + timeout;
        self.until(Some(deadline), |producer| producer.init_transactions(REQUEST_SLICE))?;
        self.losses = self.deliveries().connection.losses();
        Ok(())
    }

    /// Begins a transaction. Local: the broker learns of it with the first record.
    pub fn begin(&mut self) -> Result<(), TxError> {
        self.deliveries().begin();
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
            let undelivered = Undelivered::new(&error, &record.topic);
            let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !full || self.interrupt.is_raised() {
                let error = if full { TxError::Retriable(error.into()) } else { not_queued(&error, record) };
                self.deliveries().not_sent(&error, undelivered);
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

    /// Commits. After a time-out it asks again, as long as Kafka is heard now and then: the outcome is never guessed.
    pub fn commit(&mut self) -> Result<(), TxError> {
        self.await_deliveries()?;
        if self.was_disturbed() {
            return Err(TxError::Abortable("a connection was lost".to_owned().into()));
        }
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

    /// [`TransactionalProducer::abort`], with the reason for which a record was refused, if that spoilt the
    /// transaction: other calls may have failed with `Abortable` before the record's own failure arrived.
    pub fn abort_with_cause(&mut self) -> Result<Option<Cause>, TxError> {
        self.in_process_offsets.clear();
        let deadline = Some(Instant::now() + ABORT_TIMEOUT);
        // If the broker has timed the transaction out before, librdkafka may retry the abort without end.
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

    /// The topic that spoilt the last transaction, if one did: it was not there, say, or had no leader.
    pub fn undelivered(&self) -> Option<Undelivered> {
        self.deliveries().undelivered()
    }

    /// Looks whether the topic may take records. It may refuse them all the same.
    pub fn look_at(&self, topic: &str) -> TopicLook {
        use RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
        let metadata = match self.producer.client().fetch_metadata(Some(topic), LOOK_TIMEOUT) {
            Ok(metadata) if metadata.brokers().is_empty() => return TopicLook::Unfit,
            Ok(metadata) => metadata,
            Err(KafkaError::MetadataFetch(UnknownTopic | UnknownTopicOrPartition)) => return TopicLook::Missing,
            Err(_) => return TopicLook::Unfit,
        };
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return TopicLook::Missing;
        };
        match found.error().map(RDKafkaErrorCode::from) {
            Some(UnknownTopic | UnknownTopicOrPartition) => return TopicLook::Missing,
            Some(_) => return TopicLook::Unfit,
            None => {}
        }
        let partitions = found.partitions();
        let fit = !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0);
        if fit { TopicLook::Fit } else { TopicLook::Unfit }
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

    /// Calls again while the answer is "retriable", until the deadline or the interrupt. Without a deadline, until the
    /// producer counts as deaf: it would ask nobody for good; or until twice the transaction's time-out has passed
    /// while Kafka could be reached: librdkafka waits for ever for offsets whose group's coordinator went away
    /// together with the leader of a record, and a rebalance waits for us.
    fn until(
        &self,
        deadline: Option<Instant>,
        call: impl Fn(&ThreadedProducer<Deliveries>) -> Result<(), KafkaError>,
    ) -> Result<(), TxError> {
        let connection = &self.deliveries().connection;
        let mut reached_since = Instant::now();
        loop {
            let Err(error) = call(&self.producer) else {
                connection.alive();
                return Ok(());
            };
            if connection.is_down() {
                reached_since = Instant::now();
            }
            if let (Some(refusal), true) = (connection.refusal(), deadline.is_some()) {
                return Err(TxError::Retriable(format!("Kafka refuses this client: {refusal}").into()));
            }
            let is_stuck =
                || connection.is_silent_for(GIVE_UP_AFTER) || reached_since.elapsed() >= self.transaction_timeout * 2;
            match classify(error) {
                TxError::Retriable(cause) if deadline.is_none() && is_stuck() => return Err(TxError::Fatal(cause)),
                TxError::Retriable(_)
                    if !self.interrupt.is_raised() && deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
                other => return Err(other),
            }
        }
    }
}

fn client(
    settings: &Settings,
    transactional_id: &str,
    transaction_timeout: Duration,
) -> Result<ThreadedProducer<Deliveries>, Error> {
    let timeout_ms = transaction_timeout.as_millis().to_string();
    let mut config = settings.producer_config(&[
        ("transactional.id", transactional_id),
        ("transaction.timeout.ms", &timeout_ms),
        ("message.timeout.ms", &timeout_ms),
        // Offsets right after a commit meet CONCURRENT_TRANSACTIONS and are retried after this; default 100.
        ("retry.backoff.ms", "1"),
        ("log.connection.close", "true"),
    ]);
    config.set_log_level(RDKafkaLogLevel::Info);
    Ok(ThreadedProducer::from_config_and_context(&config, Deliveries::new(settings.in_process.clone()))?)
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
