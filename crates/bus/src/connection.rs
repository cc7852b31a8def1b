//! One client's connection: librdkafka's log lines at debug, and one message of our own per change of state.

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Is Kafka there? Says so when that changes, not more often.
#[derive(Debug)]
pub(crate) struct Connection {
    role: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    down: bool,
    last_reason: String,
}

impl Connection {
    pub(crate) fn new(role: &'static str) -> Self {
        Self { role, state: Mutex::default() }
    }

    /// Kafka could not be reached.
    pub(crate) fn lost(&self, reason: &str) {
        let mut state = self.lock();
        state.last_reason = reason.to_owned();
        if !state.down {
            state.down = true;
            tracing::warn!(client = self.role, reason, "Kafka is not reachable; retrying");
        }
    }

    /// Something came back from Kafka.
    pub(crate) fn alive(&self) {
        let mut state = self.lock();
        if state.down {
            state.down = false;
            tracing::info!(client = self.role, "Kafka is reachable again");
        }
    }

    pub(crate) fn is_down(&self) -> bool {
        self.lock().down
    }

    /// librdkafka's own words for the last global error.
    pub(crate) fn last_reason(&self) -> String {
        self.lock().last_reason.clone()
    }

    /// A global error of the client.
    pub(crate) fn report(&self, error: &KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Resolve | RDKafkaErrorCode::Authentication) => {
                self.lost(reason);
            }
            _ => {
                self.lock().last_reason = reason.to_owned();
                tracing::debug!(client = self.role, %error, reason, "librdkafka");
            }
        }
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// librdkafka repeats itself once per reconnect, so its lines stay below info; what matters is said by `Connection`.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, message, "librdkafka");
        }
        _ => tracing::debug!(facility, message, "librdkafka"),
    }
}

impl ClientContext for Connection {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.report(&error, reason);
    }
}
