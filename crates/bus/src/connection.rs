//! One client's connection: librdkafka's log lines at debug, and one message of our own per change of state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

/// Any topic will do to be answered, and this one is Kafka's own.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// The time without any answer after which a client counts as deaf. Shorter than a session of a group.
pub(crate) const DEAF_AFTER: Duration = Duration::from_secs(8);

/// The state of the connection to Kafka, logged when it changes. Outlives the client: another one that takes its place
/// goes on with it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    role: &'static str,
    state: Mutex<State>,
    /// Connections that were lost, so far.
    losses: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    down: bool,
    /// Kafka was heard since the client began, and not lost since.
    heard: bool,
    /// Kafka answers, and refuses this client: the reason, as an operator needs it.
    refusal: Option<String>,
    /// Since then there were failures only.
    silent_since: Option<Instant>,
    last_reason: String,
}

impl Connection {
    pub(crate) fn new(role: &'static str) -> Self {
        Self(Arc::new(Shared { role, state: Mutex::default(), losses: AtomicU64::new(0) }))
    }

    /// Notes that Kafka could not be reached.
    pub(crate) fn lost(&self, reason: &str) {
        let mut state = self.lock();
        let is_refused = state.refusal.is_some();
        if !is_refused {
            state.last_reason = reason.to_owned();
        }
        if self.fall(&mut state) && !is_refused {
            tracing::warn!(client = self.0.role, reason, "Kafka is not reachable; retrying");
        }
    }

    /// Notes that a broker refused the login, or that its certificate was refused. Told at once, and once.
    fn refused(&self, reason: &str) {
        let mut state = self.lock();
        self.fall(&mut state);
        if state.refusal.is_none() {
            tracing::warn!(client = self.0.role, reason, "Kafka refuses this client; retrying");
        }
        state.last_reason = format!("it refuses this client: {reason}");
        state.refusal = Some(reason.to_owned());
    }

    /// True if it was up.
    fn fall(&self, state: &mut State) -> bool {
        state.heard = false;
        state.silent_since.get_or_insert_with(Instant::now);
        let was_up = !std::mem::replace(&mut state.down, true);
        if was_up {
            self.0.losses.fetch_add(1, Ordering::Relaxed);
        }
        was_up
    }

    /// The reason for which Kafka refuses this client; none: it does not, or was not asked.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.lock().refusal.clone()
    }

    /// True if Kafka answered the client that is there now.
    pub(crate) fn is_heard(&self) -> bool {
        self.lock().heard
    }

    /// Notes that a request that began then got no answer.
    pub(crate) fn unanswered(&self, began: Instant) {
        self.lock().silent_since.get_or_insert(began);
    }

    /// Notes that Kafka answered.
    pub(crate) fn alive(&self) {
        let mut state = self.lock();
        (state.silent_since, state.heard, state.refusal) = (None, true, None);
        if state.down {
            state.down = false;
            tracing::info!(client = self.0.role, "Kafka is reachable again");
        }
    }

    pub(crate) fn is_down(&self) -> bool {
        self.lock().down
    }

    /// True if for so long nothing but failures came. Kafka may be away, or the client has forgotten all brokers: of an
    /// answer that names none, as a broker gives that has just started, librdkafka takes it that there are none
    /// (<https://github.com/confluentinc/librdkafka/issues/5301>), and it asks nobody any more. Only another client
    /// helps then.
    pub(crate) fn is_silent_for(&self, time: Duration) -> bool {
        self.lock().silent_since.is_some_and(|since| since.elapsed() >= time)
    }

    /// Another client takes the place of the one before, and has as long until it counts as deaf.
    pub(crate) fn begin_anew(&self) {
        let mut state = self.lock();
        state.heard = false;
        state.silent_since = state.down.then(Instant::now);
        tracing::debug!(client = self.0.role, "nothing was heard of Kafka for long; another client begins");
    }

    /// librdkafka's own text of the last global error.
    pub(crate) fn last_reason(&self) -> String {
        self.lock().last_reason.clone()
    }

    /// The count of connections that were lost after they had been up, by a request's time-out too, and of the times
    /// when all were.
    pub(crate) fn losses(&self) -> u64 {
        self.0.losses.load(Ordering::Relaxed)
    }

    /// Counts a lost connection. librdkafka tells of it by a log line only (of level info, where
    /// `log.connection.close` is set); an attempt to connect in vain ends "in state CONNECT".
    pub(crate) fn count_loss(&self, facility: &str, message: &str) {
        if facility == "FAIL" && message.contains(" in state UP") {
            self.0.losses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes a global error of the client.
    pub(crate) fn report(&self, error: &KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Resolve) => self.lost(reason),
            Some(code) if is_refusal(code) => self.refused(reason),
            _ => {
                self.lock().last_reason = reason.to_owned();
                tracing::debug!(client = self.0.role, %error, reason, "librdkafka");
            }
        }
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

/// Asks for metadata. An answer that names no broker counts as none: see [`Connection::is_silent_for`].
pub(crate) fn metadata<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: Option<&str>,
    timeout: Duration,
) -> KafkaResult<Metadata> {
    let metadata = client.fetch_metadata(topic, timeout)?;
    if metadata.brokers().is_empty() {
        return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerNotAvailable));
    }
    Ok(metadata)
}

/// The time that one attempt to be heard may take; a refusal is seen after it.
const GREETING_SLICE: Duration = Duration::from_millis(500);

/// Waits until a client that was not heard yet is heard, or refused: a look-up that runs out of time would not tell
/// which.
pub(crate) fn greet(client: &BaseConsumer<Connection>, timeout: Duration) {
    let connection = client.context();
    let deadline = Instant::now() + timeout;
    while !connection.is_heard() && Instant::now() < deadline {
        if metadata(client, Some(OFFSETS_TOPIC), GREETING_SLICE).is_ok() {
            return connection.alive();
        }
        serve_events(client);
        if connection.refusal().is_some() {
            return;
        }
    }
}

/// Log lines and errors of a client that are served after each look.
const EVENTS_SERVED_MAX: usize = 64;

/// Serves the log lines and errors of a client that is only asked, and never polled: they would pile up.
pub(crate) fn serve_events(client: &BaseConsumer<Connection>) {
    (0..EVENTS_SERVED_MAX).for_each(|_| drop(client.poll(Duration::ZERO)));
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

/// The codes that say: not you.
pub(crate) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL)
}

impl ClientContext for Connection {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.report(&error, reason);
    }
}

impl ConsumerContext for Connection {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_counts_as_deaf_after_a_while_of_failures_only_and_its_successor_has_as_long() {
        let connection = Connection::new("test");
        let long_ago = Instant::now() - DEAF_AFTER;
        connection.unanswered(long_ago);
        assert!(connection.is_silent_for(DEAF_AFTER) && !connection.is_down());
        connection.alive();
        assert!(!connection.is_silent_for(Duration::ZERO));
        connection.unanswered(long_ago);
        connection.lost("all brokers are down");
        assert!(connection.is_silent_for(DEAF_AFTER) && connection.is_down(), "it began with the first failure");
        connection.begin_anew();
        assert!(!connection.is_silent_for(DEAF_AFTER) && connection.is_down(), "Kafka is away all the same");
        assert_eq!(connection.losses(), 1);
        connection.lost("all brokers are down");
        assert_eq!(connection.losses(), 1, "once per change");
    }

    #[test]
    fn a_refusal_is_not_covered_up_by_what_follows_from_it() {
        let connection = Connection::new("test");
        let refused = KafkaError::Global(RDKafkaErrorCode::Authentication);
        connection.report(&refused, "invalid credentials");
        connection.report(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(connection.refusal().as_deref(), Some("invalid credentials"));
        assert_eq!(connection.last_reason(), "it refuses this client: invalid credentials");
        assert!(connection.is_down() && !connection.is_heard());
        connection.alive();
        assert!(connection.refusal().is_none() && connection.is_heard());
    }
}
