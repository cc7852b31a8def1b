//! The deliveries of a transaction's records: how many are on their way, and the first that failed.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;

use super::error::{Failure, TxError};
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
    pub(super) fn not_sent(&self, error: &TxError) {
        let mut state = self.state.lock();
        state.count -= 1;
        if let (TxError::Refused(cause), None) = (error, &state.failure) {
            state.failure = Some(Failure::RecordRefused(cause.clone()));
        }
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
        let mut state = self.state.lock();
        state.count -= 1;
        if let Err((error, message)) = result
            && state.failure.is_none()
        {
            state.failure = Some(Failure::new(error, message.topic()));
        }
        if state.count == 0 || result.is_err() {
            self.changed.notify_all();
        }
    }
}
