//! The reasons for which a session ends.

use anyhow::anyhow;
use store::slot::SlotError;
use tokio::task::JoinError;

use crate::drain::DrainError;
use crate::stream::StreamError;

/// The reason for a session's end, by the missing dependency.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// Postgres is away.
    #[error("Postgres is missing")]
    Postgres(#[source] anyhow::Error),
    /// Postgres lacks something that streaming needs; the cause says the remedy.
    #[error("the slot is missing")]
    Slot(#[source] anyhow::Error),
    /// Kafka is away, or lacks something that the relay needs.
    #[error("Kafka is missing")]
    Kafka(#[source] anyhow::Error),
    /// The position does not fit the server; the cause says the remedy.
    #[error("the position does not fit")]
    Position(#[source] anyhow::Error),
    /// Reading on would leave rows out, which a relay can find by itself: the publication was missing for a time, or
    /// the way of reading is another one.
    #[error("{0}")]
    LeftOut(&'static str),
    /// What would have been left out was sent.
    #[error("what would have been left out was sent")]
    Recovered,
    /// Another relay was faster, or has taken over.
    #[error("another relay has taken over")]
    Superseded,
    /// A request may still be under way that the next session must bar.
    #[error("a connection to Kafka was lost; taking the transactional id over anew")]
    Disturbed,
    /// The delivering thread was stopped.
    #[error("the session was stopped")]
    Stopped,
    /// Shutdown.
    #[error("shutting down")]
    Shutdown,
}

impl From<StreamError> for SessionError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Unreachable(_) => Self::Postgres(error.into()),
            StreamError::InUse => Self::Superseded,
            StreamError::Refused(_) => Self::Slot(error.into()),
        }
    }
}

impl From<SlotError> for SessionError {
    fn from(error: SlotError) -> Self {
        match error {
            SlotError::Store(error) => Self::Postgres(error.into()),
            error => Self::Slot(error.into()),
        }
    }
}

impl From<store::Error> for SessionError {
    fn from(error: store::Error) -> Self {
        Self::Postgres(error.into())
    }
}

impl From<DrainError> for SessionError {
    fn from(error: DrainError) -> Self {
        match error {
            DrainError::Fenced => Self::Superseded,
            DrainError::Stopped => Self::Stopped,
            DrainError::Disturbed => Self::Disturbed,
            DrainError::Broken(_) | DrainError::NoDeadLetters(_) => Self::Kafka(error.into()),
        }
    }
}

impl SessionError {
    /// The reason for which the delivering thread ended though nobody stopped it.
    pub(crate) fn from_drain(drained: Result<Result<(), DrainError>, JoinError>) -> Self {
        match drained {
            Ok(Ok(())) => Self::Stopped,
            Ok(Err(error)) => error.into(),
            Err(panicked) => Self::Kafka(anyhow!("delivering ended: {panicked}")),
        }
    }
}

impl From<bus::Error> for SessionError {
    fn from(error: bus::Error) -> Self {
        Self::Kafka(error.into())
    }
}
