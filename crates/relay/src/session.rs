//! One session: from taking the slot until something ends it. The order is that of rule 1 (docs/rules.md). It
//! alone keeps deliveries from being lost or repeated:
//!
//! 1. begin streaming, which takes the slot (a standby waits here and does nothing else);
//! 2. initialise transactions, which ends and fences the predecessor;
//! 3. read the position, and refuse if it does not fit the server;
//! 4. skip the commits up to it;
//! 5. deliver, and acknowledge only what Kafka has committed.

use std::time::Duration;

use anyhow::anyhow;
use bus::{Table, TopicLimits, TransactionalProducer, TxError};
use events::position::Position;
use service_kit::CancellationToken;
use store::slot::{self, SlotError};
use tokio::runtime::Handle;
use tokio::task::JoinError;

use crate::drain::{Drain, DrainError};
use crate::fit::{self, Mismatch};
use crate::read::{self, Buffer, ReadError};
use crate::stream::{self, Stream, StreamError};
use crate::{Relay, telemetry};

/// Kafka is asked whether it is there before the slot is taken.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);
/// Taking over waits for the end of the predecessor's transaction.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(15);
/// Reading the position back.
const POSITION_TIMEOUT: Duration = Duration::from_secs(30);
/// Where to look for the position, in offsets before the end of its topic: what is written under load between two
/// compactions is more than a takeover should read.
const POSITION_OFFSETS_BACK: [i64; 3] = [1_000, 100_000, i64::MAX];
/// The running transaction may take so long to end after the session has.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a session ended, by the dependency that is missing.
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
    /// Another relay was faster, or has taken over.
    #[error("another relay has taken over")]
    Superseded,
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

impl From<DrainError> for SessionError {
    fn from(error: DrainError) -> Self {
        match error {
            DrainError::Fenced => Self::Superseded,
            DrainError::Stopped => Self::Stopped,
            DrainError::Broken(_) | DrainError::NoDeadLetters(_) => Self::Kafka(error.into()),
        }
    }
}

impl From<bus::Error> for SessionError {
    fn from(error: bus::Error) -> Self {
        Self::Kafka(error.into())
    }
}

impl Relay {
    /// Runs one session to its end. Whatever ends it, calling again is safe.
    pub(crate) async fn session(&self, shutdown: &CancellationToken) -> SessionError {
        let outcome = shutdown.run_until_cancelled(self.begin(shutdown)).await;
        let ended = match outcome {
            None => SessionError::Shutdown,
            Some(Err(error)) => error,
            Some(Ok((stream, producer, position))) => self.deliver(stream, producer, position, shutdown).await,
        };
        telemetry::active(false);
        ended
    }

    /// Steps 1 to 3.
    async fn begin(
        &self,
        shutdown: &CancellationToken,
    ) -> Result<(Stream, TransactionalProducer, Position), SessionError> {
        self.admin.reachable(REACH_TIMEOUT).await?;
        self.readiness.ready("kafka");
        slot::check_server(&self.pool).await?;
        self.readiness.ready("postgres");
        slot::status(&self.pool, &self.slot).await?;
        let stand_by = || self.readiness.ready_as("slot", "standby: another relay streams from the slot");
        let stream = Stream::take(&self.database, &self.slot, &self.settings.config, stand_by).await?;
        self.readiness.ready("slot");
        tracing::debug!(slot = self.slot, "the slot is ours");
        let producer = self.take_over(shutdown).await?;
        tracing::debug!(slot = self.slot, "a predecessor, if any, is fenced");
        let position = self.settle_position(&stream).await?;
        self.readiness.ready("position");
        Ok((stream, producer, position))
    }

    /// Step 2.
    async fn take_over(&self, shutdown: &CancellationToken) -> Result<TransactionalProducer, SessionError> {
        let id = format!("{}-relay", self.settings.topics.prefix());
        let timeout = self.settings.config.transaction_timeout();
        let mut producer = TransactionalProducer::new(&self.settings.bus, &id, timeout)?;
        let interrupt = producer.interrupt();
        let guard = shutdown.clone();
        // Shutdown cancels the waiting, not the thread: that ends by the interrupt.
        let waiting = tokio::spawn(async move {
            guard.cancelled().await;
            interrupt.raise();
        });
        let init = tokio::task::spawn_blocking(move || producer.init(TAKE_OVER_TIMEOUT).map(|()| producer)).await;
        waiting.abort();
        match init {
            Ok(Ok(producer)) => Ok(producer),
            Ok(Err(TxError::Fenced)) => Err(SessionError::Superseded),
            Ok(Err(error)) => {
                let context = format!("taking over transactional id {id}");
                Err(SessionError::Kafka(anyhow::Error::new(error).context(context)))
            }
            Err(error) => Err(SessionError::Kafka(error.into())),
        }
    }

    /// Step 3.
    async fn settle_position(&self, stream: &Stream) -> Result<Position, SessionError> {
        let topics = &self.settings.topics;
        for topic in [topics.relay(), topics.dead_letters()] {
            if !self.admin.topic_exists(&topic).await? {
                return Err(SessionError::Kafka(anyhow!("topic {topic} is missing; run `meanwhile migrate`")));
            }
        }
        let reading = tokio::time::timeout(POSITION_TIMEOUT, self.read_position());
        let read = reading.await.map_err(|_| SessionError::Kafka(anyhow!("the position could not be read in time")))?;
        let Some(position) = read? else {
            let lsn = stream.server.confirmed_lsn;
            tracing::info!(slot = self.slot, %lsn, "no position yet: beginning where the slot does");
            return Ok(fit::first(&stream.server));
        };
        let mut verdict = fit::check(&position, &stream.server);
        if matches!(verdict, Err(Mismatch::Ahead { .. })) {
            // The predecessor may have delivered what was written after we asked how far the server is.
            let flushed_lsn = stream::look(&self.database, &self.slot, &self.settings.config).await?.flushed_lsn;
            verdict = fit::check(&position, &fit::Server { flushed_lsn, ..stream.server.clone() });
        }
        verdict.map_err(|mismatch| {
            let remedy = mismatch.remedy(&topics.relay(), &self.slot);
            SessionError::Position(anyhow!("{mismatch}. The relay delivers nothing until this is settled: {remedy}"))
        })?;
        Ok(position)
    }

    /// The newest position in Kafka; none when there never was one, or when it was tombstoned.
    async fn read_position(&self) -> Result<Option<Position>, SessionError> {
        let topic = self.settings.topics.relay();
        let ends = self.admin.end_offsets(std::slice::from_ref(&topic)).await?;
        let end = ends.into_values().max().unwrap_or(0);
        for back in POSITION_OFFSETS_BACK {
            let (records, _) = Table::load_recent(&self.settings.bus, &topic, back).await?;
            let newest = records.into_iter().rev().find(|record| record.key.as_deref() == Some(self.slot.as_bytes()));
            if let Some(record) = newest {
                let Some(value) = record.value else { return Ok(None) };
                let unreadable =
                    |error| SessionError::Position(anyhow!("{topic}[0] offset {}: {error}", record.offset));
                return Position::parse(&value).map(Some).map_err(unreadable);
            }
            if back >= end {
                break;
            }
        }
        Ok(None)
    }

    /// Steps 4 and 5, until the stream or the drain ends.
    async fn deliver(
        &self,
        stream: Stream,
        producer: TransactionalProducer,
        position: Position,
        shutdown: &CancellationToken,
    ) -> SessionError {
        let config = &self.settings.config;
        let (buffer, items) = Buffer::new(config.buffer_rows_max, config.buffer_bytes_max);
        let stop = shutdown.child_token();
        let interrupt = producer.interrupt();
        let dev_capacity = self.settings.bus.dev_capacity(&self.settings.topics);
        let drain = Drain {
            producer,
            items,
            position,
            delivered: self.delivered.clone(),
            limits: TopicLimits::new(self.admin.clone()),
            topics: self.settings.topics.clone(),
            slot: self.slot.clone(),
            config: config.within(dev_capacity.as_ref()),
            dev_capacity,
            clock: self.clock.clone(),
            seams: self.settings.seams.clone(),
            stop: stop.clone(),
            runtime: Handle::current(),
            last_abort: None,
        };
        let mut draining = tokio::task::spawn_blocking(move || drain.run());
        tracing::info!(slot = self.slot, lsn = %position.end_lsn, relayed = position.relayed, "delivering");
        telemetry::active(true);
        let (mut client, mut delivered) = (stream.client, self.delivered.subscribe());
        let read = tokio::select! {
            read = read::read(&mut client, &position, &buffer, &mut delivered) => read,
            drained = &mut draining => return drain_end(drained),
            () = shutdown.cancelled() => Ok(()),
        };
        stop.cancel();
        // The slot stays ours until the last transaction has ended, so that no successor has to fence it.
        let drained = match tokio::time::timeout(STOP_TIMEOUT, &mut draining).await {
            Ok(drained) => drained,
            Err(_) => {
                interrupt.raise();
                draining.await
            }
        };
        client.stop();
        match (read, drain_end(drained)) {
            _ if shutdown.is_cancelled() => SessionError::Shutdown,
            (Ok(()), ended) | (Err(_), ended @ SessionError::Superseded) => ended,
            (Err(ReadError::Stream(error)), _) => error.into(),
            (Err(error), _) => SessionError::Slot(anyhow::Error::new(error).context("the stream cannot be read")),
        }
    }
}

fn drain_end(drained: Result<Result<(), DrainError>, JoinError>) -> SessionError {
    match drained {
        Ok(Ok(())) => SessionError::Stopped,
        Ok(Err(error)) => error.into(),
        Err(panicked) => SessionError::Kafka(anyhow!("delivering ended: {panicked}")),
    }
}
