//! Errors of requests to Kafka that are no transactions.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::connection::is_refusal;

/// librdkafka's own text of an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cause(String);

impl From<&str> for Cause {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<KafkaError> for Cause {
    fn from(error: KafkaError) -> Self {
        // As text: the error's own text repeats that of its source.
        Self(error.to_string())
    }
}

/// An error's text with those of its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A request to Kafka failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The brokers cannot be reached, or did not answer in time. Try again.
    #[error("Kafka is not reachable")]
    Unavailable(#[source] Cause),
    /// The brokers refuse the login, or their certificate is refused. An operator has to act.
    #[error("Kafka refuses this client")]
    Denied(#[source] Cause),
    /// The topic does not exist.
    #[error("topic does not exist: {0}")]
    TopicMissing(String),
    /// The record is larger than the topic, or the client, allows. Trying again does not help.
    #[error("record too large for {topic}: {size_bytes} bytes")]
    TooLarge {
        /// The record's topic.
        topic: String,
        /// Its size on the wire.
        size_bytes: usize,
    },
    /// The settings make no client.
    #[error("bad Kafka settings")]
    Settings(#[source] Cause),
    /// Anything else.
    #[error("Kafka refused")]
    Refused(#[source] Cause),
}

impl Error {
    pub(crate) fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable(cause.into())
    }

    pub(crate) fn refused(cause: impl Into<Cause>) -> Self {
        Self::Refused(cause.into())
    }

    /// True if an operator has to mend the login first.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied(_))
    }

    pub(crate) fn settings(cause: impl Into<Cause>) -> Self {
        Self::Settings(cause.into())
    }

    /// True if the same request may succeed later, unchanged.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<KafkaError> for Error {
    fn from(error: KafkaError) -> Self {
        let text = error.to_string();
        match &error {
            KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => return Self::Settings(text.into()),
            _ => {}
        }
        match error.rdkafka_error_code() {
            Some(code) if is_unavailable(code) => Self::Unavailable(text.into()),
            Some(code) if is_refusal(code) => Self::Denied(text.into()),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Self::TopicMissing(text)
            }
            _ => Self::Refused(text.into()),
        }
    }
}

/// The codes that say: not now.
pub(crate) fn is_unavailable(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::BrokerNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::LeaderNotAvailable
            | Code::MessageTimedOut
            | Code::NetworkException
            | Code::NotCoordinator
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::NotLeaderForPartition
            | Code::OperationTimedOut
            | Code::QueueFull
            | Code::RequestTimedOut
            | Code::Resolve
            | Code::WaitingForCoordinator
    )
}
