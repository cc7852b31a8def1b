//! The plain producer: idempotent, acks=all, no transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::util::Timeout;

use crate::connection::Connection;
use crate::error::Cause;
use crate::renewing::Renewing;
use crate::{Error, Record, Settings};

/// The time that a record has to be acknowledged before the send fails.
const DELIVERY_TIMEOUT_MS: &str = "30000";
/// The longest wait for room in the local queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends single records. Cheap to clone.
#[derive(Clone)]
pub struct Producer {
    settings: Settings,
    /// After a permanent error (an idempotent producer whose sequence broke) another client takes its place, too.
    client: Arc<Renewing<FutureProducer<Connection>>>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("in_flight", &self.client.client().in_flight_count()).finish()
    }
}

impl Producer {
    /// Connects in the background; fails only for settings that make no client.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let config = settings.producer_config(&[("message.timeout.ms", DELIVERY_TIMEOUT_MS)]);
        let client = Renewing::new("producer", move |connection| {
            Ok(FutureProducer::from_config_and_context(&config, connection)?)
        })?;
        Ok(Self { settings: settings.clone(), client: Arc::new(client) })
    }

    /// Sends and waits for the acknowledgement of all in-sync replicas: partition and offset.
    pub async fn send(&self, record: &Record) -> Result<(i32, i64), Error> {
        self.client.renew_if(|_| self.client.is_deaf())?;
        let (began, client) = (Instant::now(), self.client.client());
        let delivery = client.send(future_record(record), Timeout::After(QUEUE_TIMEOUT)).await;
        let delivered = delivery.map_err(|(error, _)| send_error(error, record));
        let delivered = self.client.heard(began, delivered).and_then(|delivery| match has_place(delivery.offset) {
            true => Ok((delivery.partition, delivery.offset)),
            false => Err(Error::unavailable(no_place(&record.topic))),
        });
        match &delivered {
            Ok((partition, offset)) => {
                if let Some(in_process) = &self.settings.in_process {
                    in_process.wrote(&record.topic, *partition, *offset, record.size_bytes());
                }
            }
            Err(failed) => {
                let broken = client.client().fatal_error();
                let is_broken = |client: &FutureProducer<Connection>| client.client().fatal_error().is_some();
                if let Some((code, reason)) = broken {
                    let is_refused = matches!(failed, Error::Refused(_));
                    if self.client.renew_if(is_broken)? {
                        tracing::warn!(%code, reason, "a producer is broken; another one takes its place");
                    }
                    if is_refused {
                        // librdkafka only says that it has thrown the record away.
                        return Err(Error::refused(format!("{reason} ({code})")));
                    }
                }
            }
        }
        delivered
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

/// Whether an acknowledgement says where the record is. Without that it may not be anywhere: where the first of several
/// batches for a partition in which the producer is new is refused for a moment, the broker takes the next one all the
/// same, whatever its sequence number, and the first one, sent again, for a repetition. librdkafka takes it for
/// delivered.
pub(crate) fn has_place(offset: i64) -> bool {
    offset >= 0
}

/// The cause where it does not.
pub(crate) fn no_place(topic: &str) -> Cause {
    Cause::from(format!(
        "the broker acknowledged a record without its offset, topic {topic}: it may not have been written"
    ))
}

/// The record's headers as librdkafka takes them.
pub(crate) fn headers(record: &Record) -> Option<OwnedHeaders> {
    if record.headers.is_empty() {
        return None;
    }
    let empty = OwnedHeaders::new_with_capacity(record.headers.len());
    Some(record.headers.iter().fold(empty, |headers, (key, value)| headers.insert(Header { key, value })))
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

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::RDKafkaRespErr;

    use super::*;

    #[tokio::test]
    async fn a_producer_that_is_broken_for_good_makes_room_for_another_one() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let producer = Producer::new(&Settings::new(cluster.bootstrap_servers(), "")).unwrap();
        let record = Record { topic: "t".to_owned(), value: Some(b"v".to_vec()), ..Record::default() };
        producer.send(&record).await.unwrap();
        let broken = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER; 1];
        cluster.request_errors(rdkafka::types::RDKafkaApiKey::Produce, &broken);
        producer.send(&record).await.unwrap_err();
        producer.send(&record).await.unwrap();
    }

    #[tokio::test]
    async fn a_record_whose_place_is_not_known_is_not_delivered() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let producer = Producer::new(&Settings::new(cluster.bootstrap_servers(), "")).unwrap();
        let record = Record { topic: "t".to_owned(), value: Some(b"v".to_vec()), ..Record::default() };
        let repeated = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER; 1];
        cluster.request_errors(rdkafka::types::RDKafkaApiKey::Produce, &repeated);
        let error = producer.send(&record).await.unwrap_err();
        assert!(crate::error::chain(&error).contains("without its offset"), "{error:?}");
        producer.send(&record).await.unwrap();
    }
}
