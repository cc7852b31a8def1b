//! The plain producer: idempotent, acks=all, no transaction.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::util::Timeout;

use crate::connection::Connection;
use crate::in_process::InProcess;
use crate::{Error, Record, Settings};

/// A record may wait so long for its acknowledgement before the send fails.
const DELIVERY_TIMEOUT_MS: &str = "30000";
/// The longest wait for room in the local queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends single records. Cheap to clone.
#[derive(Clone)]
pub struct Producer {
    producer: FutureProducer<Connection>,
    /// Counts what it holds unread.
    in_process: Option<Arc<InProcess>>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("in_flight", &self.producer.in_flight_count()).finish()
    }
}

impl Producer {
    /// Connects in the background; fails only for settings that make no client.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let config = settings.producer_config(&[("message.timeout.ms", DELIVERY_TIMEOUT_MS)]);
        let producer = FutureProducer::from_config_and_context(&config, Connection::new("producer"))?;
        Ok(Self { producer, in_process: settings.in_process.clone() })
    }

    /// Sends and waits for the acknowledgement of all in-sync replicas: partition and offset.
    pub async fn send(&self, record: &Record) -> Result<(i32, i64), Error> {
        let delivery = self.producer.send(future_record(record), Timeout::After(QUEUE_TIMEOUT)).await;
        match delivery {
            Ok(delivery) => {
                let (partition, offset) = (delivery.partition, delivery.offset);
                if let Some(in_process) = &self.in_process {
                    in_process.wrote(&record.topic, partition, offset, record.size_bytes());
                }
                Ok((partition, offset))
            }
            Err((error, _)) => Err(send_error(error, record)),
        }
    }

    /// Sends if there is room, and never learns the outcome: for progress, which no decision depends on.
    pub fn send_lossy(&self, record: &Record) {
        if let Err((error, _)) = self.producer.send_result(future_record(record)) {
            tracing::debug!(topic = record.topic, %error, "a lossy record was not sent");
        }
    }

    /// Waits until everything sent has been acknowledged or has failed. Blocks; at most `timeout`.
    pub fn flush(&self, timeout: Duration) -> Result<(), Error> {
        Ok(self.producer.flush(timeout)?)
    }
}

fn future_record(record: &Record) -> FutureRecord<'_, [u8], [u8]> {
    FutureRecord {
        topic: &record.topic,
        partition: None,
        payload: record.value.as_deref(),
        key: record.key.as_deref(),
        timestamp: None,
        headers: headers(record),
    }
}

/// The record's headers as librdkafka takes them.
pub(crate) fn headers(record: &Record) -> Option<OwnedHeaders> {
    if record.headers.is_empty() {
        return None;
    }
    let empty = OwnedHeaders::new_with_capacity(record.headers.len());
    Some(
        record
            .headers
            .iter()
            .fold(empty, |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() })),
    )
}

/// The size of a delivered record.
pub(crate) fn size_bytes(message: &impl Message) -> usize {
    let header = |header: Header<'_, &[u8]>| header.key.len() + header.value.map_or(0, <[u8]>::len);
    let headers: usize = message.headers().map_or(0, |headers| headers.iter().map(header).sum());
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    length(message.key()) + length(message.payload()) + headers
}

fn send_error(error: KafkaError, record: &Record) -> Error {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::MessageBatchTooLarge,
        ) => Error::TooLarge { topic: record.topic.clone(), size_bytes: record.size_bytes() },
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            Error::TopicMissing(record.topic.clone())
        }
        _ => error.into(),
    }
}
