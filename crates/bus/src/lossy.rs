//! The lossy producer: records whose loss harms nobody. It never waits, for room or for Kafka: a record for which there
//! is no room, or that Kafka does not take in time, is dropped and counted.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};

use crate::connection::{self, Connection};
use crate::producer::headers;
use crate::renewing::Renewing;
use crate::{Error, Record, Settings};

/// Records that wait to be sent, and their bytes. Beyond either there is no room.
const QUEUE_RECORDS_MAX: &str = "10000";
const QUEUE_KBYTES_MAX: &str = "8192";
/// The time within which Kafka has to take a record. Later it is no news any more.
const DELIVERY_TIMEOUT_MS: &str = "5000";
/// The time for which records are gathered into batches.
const LINGER_MS: &str = "20";

type Lost = Arc<dyn Fn() + Send + Sync>;

/// Sends records that may be lost. Cheap to clone.
#[derive(Clone)]
pub struct LossyProducer {
    client: Arc<Renewing<ThreadedProducer<Deliveries>>>,
    lost: Lost,
}

impl fmt::Debug for LossyProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LossyProducer").finish_non_exhaustive()
    }
}

impl LossyProducer {
    /// Connects in the background. `lost` is called once for every record that is dropped, also from a thread of the
    /// client's own.
    ///
    /// # Errors
    /// Settings that make no client.
    pub fn new(settings: &Settings, lost: impl Fn() + Send + Sync + 'static) -> Result<Self, Error> {
        let lost: Lost = Arc::new(lost);
        // The operator's properties win, as everywhere; by them a record may be acknowledged by more than the leader.
        let config = settings.client_config(&[
            ("acks", "1"),
            ("partitioner", "murmur2_random"),
            ("linger.ms", LINGER_MS),
            ("queue.buffering.max.messages", QUEUE_RECORDS_MAX),
            ("queue.buffering.max.kbytes", QUEUE_KBYTES_MAX),
            ("message.timeout.ms", DELIVERY_TIMEOUT_MS),
            ("topic.metadata.propagation.max.ms", DELIVERY_TIMEOUT_MS),
        ]);
        let told = Arc::clone(&lost);
        let client = Renewing::new("lossy producer", move |connection| {
            let deliveries = Deliveries { connection, lost: Arc::clone(&told) };
            Ok(ThreadedProducer::from_config_and_context(&config, deliveries)?)
        })?;
        Ok(Self { client: Arc::new(client), lost })
    }

    /// Puts the record into the local queue, or drops it.
    pub fn send(&self, record: &Record) {
        // A failure to make another client leaves the one that is there.
        let _ = self.client.renew_if(|_| self.client.is_deaf());
        let record = BaseRecord::<[u8], [u8]> {
            topic: &record.topic,
            partition: None,
            payload: record.value.as_deref(),
            key: record.key.as_deref(),
            timestamp: None,
            headers: headers(record),
            delivery_opaque: (),
        };
        if self.client.client().send(record).is_err() {
            (self.lost)();
        }
    }
}

/// Counts what was dropped after it was queued.
struct Deliveries {
    connection: Connection,
    lost: Lost,
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
        match result {
            Ok(_) => self.connection.alive(),
            Err(_) => {
                self.connection.unanswered(Instant::now());
                (self.lost)();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_nobody_waits() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&dropped);
        let settings = Settings::new("127.0.0.1:1", "");
        let lost = move || {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        let producer = LossyProducer::new(&settings, lost).unwrap();
        let record = Record { topic: "t".to_owned(), value: Some(b"v".to_vec()), ..Record::default() };
        let room: usize = QUEUE_RECORDS_MAX.parse().unwrap();
        for _ in 0..room + 7 {
            producer.send(&record);
        }
        assert!(dropped.load(Ordering::Relaxed) >= 7);
    }
}
