//! The loop: take a batch, apply it with its offsets in one transaction, go on.

use std::time::Duration;

use bus::{ConsumerError, Follower, RecordBatch};
use service_kit::error_chain;
use service_kit::health::Readiness;
use store::{Pool, offsets};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::halve::{advances, halve};
use crate::{Error, Service};

/// The first and the longest pause between attempts to apply a batch.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// The interval at which the connection to Kafka is checked.
const KAFKA_CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Applier<S> {
    pool: Pool,
    readiness: Readiness,
    offsets: &'static str,
    service: S,
    /// True if readiness says that the registry does not answer.
    is_registry_missing: bool,
}

impl<S: Service> Applier<S> {
    pub(crate) fn new(pool: Pool, (readiness, offsets): (Readiness, &'static str), service: S) -> Self {
        Self { pool, readiness, offsets, service, is_registry_missing: false }
    }

    pub(crate) async fn run(
        &mut self,
        follower: &mut Follower,
        shutdown: &CancellationToken,
    ) -> Result<(), ConsumerError> {
        let mut checks = tokio::time::interval(KAFKA_CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let batch = tokio::select! {
                batch = follower.next_batch() => batch?,
                _ = checks.tick() => {
                    match follower.why_down() {
                        Some(why) => self.readiness.missing("kafka", format!("it cannot be reached: {why}")),
                        None => self.readiness.ready("kafka"),
                    }
                    match follower.unreadable() {
                        unreadable if unreadable.is_empty() => self.readiness.ready(self.offsets),
                        unreadable => self.readiness.missing(self.offsets, unreadable.join("; ")),
                    }
                    continue;
                }
                () = shutdown.cancelled() => return Ok(()),
            };
            self.apply_all(follower, batch, shutdown).await;
        }
    }

    /// Applies a batch, in as many pieces as it takes. After a conflict the follower reads the rest again.
    async fn apply_all(&mut self, follower: &Follower, batch: RecordBatch, shutdown: &CancellationToken) {
        // Pieces yet to be applied, the next one last.
        let mut pieces = vec![batch];
        let mut pause = RETRY_FIRST;
        while let Some(piece) = pieces.last() {
            let error = match self.apply(piece).await {
                Ok(()) => None,
                Err(error) if piece.len() > 1 && error.may_be_of_some() => {
                    tracing::debug!(error = error_chain(&error), records = piece.len(), "halving a batch");
                    let (first, second) = halve(pieces.pop().unwrap_or_default());
                    pieces.extend([second, first]);
                    continue;
                }
                Err(Error::Store(error)) if error.is_row_error() => {
                    self.refuse(piece, &error_chain(&error)).await.err()
                }
                Err(error) => Some(error),
            };
            match error {
                None => {
                    self.readiness.ready("postgres");
                    pause = RETRY_FIRST;
                    pieces.pop();
                }
                Some(Error::Store(error)) if error.is_conflict() => {
                    // Later records of these partitions no longer fit either: read their positions again.
                    for part in pieces.iter().flat_map(|piece| &piece.parts) {
                        follower.rewind(&part.topic, part.partition);
                    }
                    return;
                }
                Some(error) => {
                    self.report(error);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
                        () = shutdown.cancelled() => return,
                    }
                }
            }
        }
    }

    async fn apply(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let effects = self.service.read(batch).await?;
        if std::mem::replace(&mut self.is_registry_missing, false) {
            self.readiness.ready("registry");
        }
        self.commit(batch, effects).await
    }

    /// Gives up the one record of this batch.
    async fn refuse(&mut self, batch: &RecordBatch, reason: &str) -> Result<(), Error> {
        let Some(record) = batch.parts.iter().flat_map(|part| &part.records).next() else { return Ok(()) };
        let effects = self.service.refuse(record, reason);
        self.commit(batch, effects).await
    }

    /// Commits effects and offsets in the one transaction of rule 3.
    async fn commit(&mut self, batch: &RecordBatch, mut effects: S::Effects) -> Result<(), Error> {
        match self.transact(batch, &mut effects).await {
            Ok(()) => {
                self.service.committed(effects);
                Ok(())
            }
            Err(error) => {
                self.service.failed(effects, &error);
                Err(error)
            }
        }
    }

    async fn transact(&mut self, batch: &RecordBatch, effects: &mut S::Effects) -> Result<(), Error> {
        let mut tx = self.pool.begin().await?;
        self.service.write(&mut tx, effects).await?;
        offsets::advance(&mut tx, &advances(batch)).await?;
        tx.commit().await?;
        Ok(())
    }

    fn report(&mut self, error: Error) {
        match error {
            Error::Store(error) => self.readiness.missing("postgres", error_chain(&error)),
            Error::Registry(error) => {
                self.is_registry_missing = true;
                self.readiness.missing("registry", error_chain(&error));
            }
            // Both pass by themselves, and whoever refuses has logged it.
            Error::OverCapacity(_) | Error::NotYet => {}
        }
    }
}
