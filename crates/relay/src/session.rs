//! One session: from taking the slot until something ends it. The order is that of rule 1 (docs/rules.md). It
//! alone keeps deliveries from being lost or repeated:
//!
//! 1. begin streaming, which takes the slot, or take the lock of those that poll (a standby waits here and does nothing
//!    else);
//! 2. initialise transactions, which ends and fences the predecessor;
//! 3. read the position, and refuse if it does not fit the server;
//! 4. skip the commits up to it;
//! 5. deliver, and acknowledge only what Kafka has committed.

use std::time::Duration;

use anyhow::anyhow;
use bus::{TopicLimits, TransactionalProducer, TxError};
use events::position::Position;
use service_kit::CancellationToken;
use store::polling::Reader;
use store::reader::{self, Way};
use store::relayed::History;
use store::slot;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::drain::Drain;
use crate::ended::SessionError;
use crate::fit::{self, Mismatch};
use crate::read::{self, Buffer, Item, ReadError};
use crate::recover::Options;
use crate::stored::{SWITCHED, Stored, UNPUBLISHED};
use crate::stream::{self, Stream};
use crate::{Relay, telemetry};

/// The time that Kafka has to answer before the slot is taken.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);
/// The time limit of a takeover, which waits for the end of the predecessor's transaction.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(15);
/// The time that the running transaction has to end after the session.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Where rows come from.
enum Source {
    /// The log, through the slot.
    Log(Box<Stream>),
    /// The table, under the lock.
    Table(Reader),
}

impl Relay {
    /// Runs one session to its end. Whatever ends it, calling again is safe.
    pub(crate) async fn session(&self, shutdown: &CancellationToken) -> SessionError {
        let outcome = shutdown.run_until_cancelled(self.begin(shutdown)).await;
        let ended = match outcome {
            None => SessionError::Shutdown,
            Some(Err(SessionError::LeftOut(reason))) => self.recover_left_out(reason, shutdown).await,
            Some(Err(error)) => error,
            Some(Ok((source, producer, position))) => self.deliver(source, producer, position, shutdown).await,
        };
        *self.publication.lock() = None;
        *self.delivers_by.lock() = None;
        telemetry::active(false);
        ended
    }

    /// Sends what would be left out, by the way of [`crate::recover`]. No person has to decide anything there.
    async fn recover_left_out(&self, reason: &'static str, shutdown: &CancellationToken) -> SessionError {
        self.readiness.missing("slot", format!("{reason}: comparing the outbox with what Kafka was given"));
        match self.recover_from(reason.to_owned(), Options::default(), shutdown).await {
            Ok(report) if report.settled_at.is_some() => {
                let rows = report.rows_missing();
                tracing::info!(slot = self.slot, reason, rows, "sent what reading on would have left out");
                SessionError::Recovered
            }
            Ok(_) => SessionError::Slot(anyhow!("{reason}: {}", fit::REMEDY)),
            Err(error) => match error.downcast::<SessionError>() {
                Ok(error) => error,
                Err(error) => SessionError::Slot(error.context(reason)),
            },
        }
    }

    /// Steps 1 to 3.
    async fn begin(
        &self,
        shutdown: &CancellationToken,
    ) -> Result<(Source, TransactionalProducer, Position), SessionError> {
        self.admin.reachable(REACH_TIMEOUT).await?;
        self.readiness.ready("kafka");
        let way = self.look_up_way().await?;
        let (source, producer, position) = match way {
            Way::Logical => self.begin_log(shutdown).await?,
            Way::Polling => self.begin_table(shutdown).await?,
        };
        *self.delivers_by.lock() = Some(way);
        self.readiness.ready("position");
        Ok((source, producer, position))
    }

    /// The way that was chosen for this outbox.
    pub(crate) async fn look_up_way(&self) -> Result<Way, store::Error> {
        Ok(reader::chosen(&self.pool).await?.unwrap_or(Way::Logical))
    }

    async fn begin_table(
        &self,
        shutdown: &CancellationToken,
    ) -> Result<(Source, TransactionalProducer, Position), SessionError> {
        self.readiness.ready("postgres");
        let stand_by = || self.readiness.ready_as("slot", "standby: another relay polls the outbox");
        let mut reader = self.take_table(self.settings.config.wal_sender_timeout_ms, stand_by).await?;
        self.readiness.ready_as("slot", "none is needed: this relay polls the outbox");
        tracing::debug!(slot = self.slot, "the lock is ours");
        let producer = self.while_present(&mut reader, self.take_over(shutdown)).await?;
        tracing::debug!(slot = self.slot, "a predecessor, if any, is fenced");
        let (producer, position) = self.settle_last_row(&mut reader, producer).await?;
        Ok((Source::Table(reader), producer, position))
    }

    async fn begin_log(
        &self,
        shutdown: &CancellationToken,
    ) -> Result<(Source, TransactionalProducer, Position), SessionError> {
        let publication = slot::check_server(&self.pool).await?;
        *self.publication.lock() = Some(publication);
        self.readiness.ready("postgres");
        slot::status(&self.pool, &self.slot).await?;
        let stand_by = || self.readiness.ready_as("slot", "standby: another relay streams from the slot");
        let stream = Stream::take(&self.database, &self.slot, &self.settings.config, stand_by).await?;
        self.readiness.ready("slot");
        tracing::debug!(slot = self.slot, "the slot is ours");
        let producer = self.take_over(shutdown).await?;
        tracing::debug!(slot = self.slot, "a predecessor, if any, is fenced");
        let (producer, position) = self.settle_position(&stream, producer).await?;
        Ok((Source::Log(Box::new(stream)), producer, position))
    }

    /// Step 2.
    pub(crate) async fn take_over(&self, shutdown: &CancellationToken) -> Result<TransactionalProducer, SessionError> {
        let id = self.settings.topics.relay_id();
        let timeout = self.settings.config.transaction_timeout();
        let mut producer = TransactionalProducer::new(&self.settings.bus, &id, timeout)?;
        let interrupt = producer.interrupt();
        let mut init = tokio::task::spawn_blocking(move || producer.init(TAKE_OVER_TIMEOUT).map(|()| producer));
        let init = tokio::select! {
            init = &mut init => init,
            () = shutdown.cancelled() => {
                // The thread ends by the interrupt.
                interrupt.raise();
                init.await
            }
        };
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
    async fn settle_position(
        &self,
        stream: &Stream,
        producer: TransactionalProducer,
    ) -> Result<(TransactionalProducer, Position), SessionError> {
        self.check_topics().await?;
        let Some(stored) = self.read_position().await? else {
            let lsn = stream.server.confirmed_lsn;
            tracing::info!(slot = self.slot, %lsn, "no position yet: beginning where the slot does");
            return Ok((producer, fit::first(&stream.server)));
        };
        let stored = self.in_common(stored, &stream.server).await?;
        let Some(mismatch) = self.mismatch(&stored, &stream.server).await? else {
            // Of a promoted server: from here on its timeline counts.
            return Ok((producer, Position { timeline: stream.server.timeline, ..stored.position }));
        };
        if matches!(mismatch, Mismatch::Ahead { .. }) {
            // By writing, the server comes to that place some day, with other rows before it.
            let unsettled = Some(mismatch.to_string());
            self.store_position(producer, &Stored { unsettled, ..stored }).await?;
        }
        Err(SessionError::of_mismatch(&mismatch))
    }

    /// The topics without which nothing can be delivered.
    pub(crate) async fn check_topics(&self) -> Result<(), SessionError> {
        let topics = &self.settings.topics;
        for topic in [topics.relay(), topics.dead_letters()] {
            if !self.admin.topic_exists(&topic).await? {
                return Err(SessionError::Kafka(anyhow!("topic {topic} is missing; run `meanwhile migrate`")));
            }
        }
        Ok(())
    }

    /// The reason for which a relay may not go on from this position on this server.
    pub(crate) async fn mismatch(
        &self,
        stored: &Stored,
        server: &fit::Server,
    ) -> Result<Option<Mismatch>, SessionError> {
        if let Some(reason) = &stored.unsettled {
            return Ok(Some(Mismatch::Unsettled(reason.clone())));
        }
        if let Some(last) = stored.position.last_row {
            let history = History { system_identifier: server.system_identifier, timeline: server.timeline };
            let mut reader = Reader::connect(&self.pool, 0).await?;
            let knows = reader.knows(last).await?;
            reader.close().await;
            let confirmed = reader::confirmed(&self.pool).await?;
            let fits =
                fit::check_history(&stored.position, history).and_then(|()| fit::check_row(last, knows, confirmed));
            return Ok(Some(fits.err().unwrap_or_else(|| Mismatch::Unsettled(SWITCHED.to_owned()))));
        }
        let publication = *self.publication.lock();
        if stored.publication.is_some_and(|known| publication != Some(known)) {
            return Ok(Some(Mismatch::Unsettled(UNPUBLISHED.to_owned())));
        }
        let mut verdict = fit::check(&stored.position, server);
        if matches!(verdict, Err(Mismatch::Ahead { .. })) {
            // The predecessor may have delivered what was written after we asked how far the server is.
            let flushed_lsn = stream::look(&self.database, &self.slot, &self.settings.config).await?.flushed_lsn;
            verdict = fit::check(&stored.position, &fit::Server { flushed_lsn, ..server.clone() });
        }
        Ok(verdict.err())
    }

    /// Steps 4 and 5, until the stream or the drain ends.
    async fn deliver(
        &self,
        mut source: Source,
        producer: TransactionalProducer,
        position: Position,
        shutdown: &CancellationToken,
    ) -> SessionError {
        let config = &self.settings.config;
        let (buffer, items) = Buffer::new(config.buffer_rows_max, config.buffer_bytes_max);
        let stop = shutdown.child_token();
        let interrupt = producer.interrupt();
        let drain = self.drain(producer, items, position, &stop);
        let mut draining = tokio::task::spawn_blocking(move || drain.run());
        tracing::info!(slot = self.slot, lsn = %position.end_lsn, relayed = position.relayed, "delivering");
        telemetry::active(true);
        let read = tokio::select! {
            read = self.read(&mut source, &position, &buffer) => read,
            drained = &mut draining => return SessionError::from_drain(drained),
            // The next session finds that out, too.
            () = self.changed.notified() => Ok(()),
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
        match source {
            Source::Log(stream) => stream.client.stop(),
            Source::Table(reader) => reader.close().await,
        }
        match (read, SessionError::from_drain(drained)) {
            _ if shutdown.is_cancelled() => SessionError::Shutdown,
            (Ok(()), ended) | (Err(_), ended @ SessionError::Superseded) => ended,
            (Err(ReadError::Stream(error)), _) => error.into(),
            (Err(ReadError::Store(error)), _) => error.into(),
            (Err(error), _) => SessionError::Slot(anyhow::Error::new(error).context("the stream cannot be read")),
        }
    }

    async fn read(&self, source: &mut Source, position: &Position, buffer: &Buffer) -> Result<(), ReadError> {
        match source {
            Source::Log(stream) => {
                let mut delivered = self.delivered.subscribe();
                read::read(&mut stream.client, position, buffer, &mut delivered).await
            }
            Source::Table(reader) => self.read_table(reader, position.last_row.unwrap_or_default(), buffer).await,
        }
    }
}

impl Relay {
    /// The delivering half of a session.
    pub(crate) fn drain(
        &self,
        producer: TransactionalProducer,
        items: mpsc::Receiver<Item>,
        position: Position,
        stop: &CancellationToken,
    ) -> Drain {
        let dev_capacity = self.settings.bus.dev_capacity(&self.settings.topics);
        Drain {
            producer,
            items,
            position,
            publication: *self.publication.lock(),
            unsettled: None,
            settle_at: None,
            delivered: self.delivered.clone(),
            limits: TopicLimits::new(self.admin.clone()),
            topics: self.settings.topics.clone(),
            rests: self.rests.clone(),
            slot: self.slot.clone(),
            config: self.settings.config.within(dev_capacity.as_ref()),
            dev_capacity,
            clock: self.clock.clone(),
            seams: self.settings.seams.clone(),
            stop: stop.clone(),
            runtime: Handle::current(),
            readiness: self.readiness.clone(),
            is_waiting: false,
        }
    }
}
