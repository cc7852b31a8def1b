//! The deliveries of a transaction's records: how many are on their way, and the first that failed.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;

use super::error::{Failure, TxError, Undelivered};
use crate::connection::{self, Connection};
use crate::in_process::InProcess;
use crate::producer;

/// Counts what is on its way, and keeps the first failure.
#[derive(Debug)]
pub(super) struct Deliveries {
    pub(super) connection: Connection,
    /// Counts what it holds unread.
    pub(super) in_process: Option<Arc<InProcess>>,
    state: Mutex<InFlight>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct InFlight {
    count: u64,
    failure: Option<Failure>,
    /// The first topic of this transaction that did not take a record.
    undelivered: Option<Undelivered>,
}

impl Deliveries {
    pub(super) fn new(in_process: Option<Arc<InProcess>>) -> Self {
        let connection = Connection::new("transactional producer");
        Self { connection, in_process, state: Mutex::default(), changed: Condvar::new() }
    }

    pub(super) fn sent(&self) {
        self.state.lock().count += 1;
    }

    /// A record that was refused before it was sent has failed as if the broker had refused it: an abort tells of both.
    pub(super) fn not_sent(&self, error: &TxError, undelivered: Option<Undelivered>) {
        let mut state = self.state.lock();
        state.count -= 1;
        state.undelivered = state.undelivered.take().or(undelivered);
        if let (TxError::Refused(cause), None) = (error, &state.failure) {
            state.failure = Some(Failure::RecordRefused(cause.clone()));
        }
    }

    /// A transaction begins.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        (state.failure, state.undelivered) = (None, None);
    }

    pub(super) fn undelivered(&self) -> Option<Undelivered> {
        self.state.lock().undelivered.clone()
    }

    pub(super) fn clear_failure(&self) {
        self.state.lock().failure = None;
    }

    pub(super) fn wait_for_one(&self, timeout: Duration) {
        self.changed.wait_for(&mut self.state.lock(), timeout);
    }

    pub(super) fn wait_for_all_or_failure(&self) -> Option<Failure> {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.count > 0 && state.failure.is_none());
        state.failure.clone()
    }

    pub(super) fn wait_for_all(&self) -> Option<Failure> {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.count > 0);
        state.failure.clone()
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.connection.count_loss(facility, message);
        connection::log(level, facility, message);
        if let Some(undelivered) = Undelivered::from_log(facility, message) {
            self.state.lock().undelivered.get_or_insert(undelivered);
        }
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
        let mut state = self.state.lock();
        state.count -= 1;
        match result {
            Ok(message) if producer::has_place(message.offset()) => {}
            Ok(message) => {
                let unsure = || Failure::Undelivered(producer::no_place(message.topic()));
                state.failure.get_or_insert_with(unsure);
            }
            Err((error, message)) => {
                let topic = message.topic();
                state.failure.get_or_insert_with(|| Failure::new(error, topic));
                state.undelivered = state.undelivered.take().or_else(|| Undelivered::new(error, topic));
            }
        }
        if state.count == 0 || state.failure.is_some() {
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use crate::{Record, Settings, TransactionalProducer, TxError};

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_transaction_with_a_record_whose_place_is_not_known_does_not_commit() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let settings = Settings::new(cluster.bootstrap_servers(), "");
        let mut producer = TransactionalProducer::new(&settings, "id", LONG).unwrap();
        producer.init(LONG).unwrap();
        let record = Record { topic: "t".to_owned(), value: Some(b"v".to_vec()), ..Record::default() };
        let repeated = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER; 1];
        cluster.request_errors(RDKafkaApiKey::Produce, &repeated);
        producer.begin().unwrap();
        producer.send(&record).unwrap();
        let error = producer.commit().unwrap_err();
        assert!(matches!(&error, TxError::Abortable(_)), "{error:?}");
        producer.abort().unwrap();
    }
}
