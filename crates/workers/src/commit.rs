//! The committer's thread: puts results into Kafka transactions (rule 2).
//!
//! A transaction begins only when results are ready, and holds the records of each result together with its offset.
//! After an abort the same results are produced again; nothing is run again. A commit whose outcome is open is asked
//! for again by `bus`, for as long as it takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::bisection::{Bisection, Verdict};
use bus::{Cause, Control, DevCapacity, OffsetCommit, TopicPartition, TransactionalProducer, TxError, Writes};
use events::dead_letter::{Class, Refused};
use service_kit::stop_at;

use self::set_aside::Told;
use crate::cadence::Cadence;
use crate::desk::Desk;
use crate::run_step::Runner;
use crate::telemetry;
use crate::tenure::Leave;
use crate::work::{Batch, Finished, Turn};

mod set_aside;
#[cfg(test)]
mod tests;

/// The first and the longest delay between an abort and the next attempt: the group may be between two generations.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The time limit of a takeover, before the desk is asked whether to go on.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(15);

/// The interval at which the broker of `meanwhile dev` is asked for room.
const ROOM_INTERVAL: Duration = Duration::from_millis(20);

/// The producer and all that it needs to commit. [`Committer::run`] consumes it.
#[derive(Debug)]
pub(crate) struct Committer {
    producer: TransactionalProducer,
    consumer: Control,
    desk: Arc<Desk>,
    runner: Arc<Runner>,
    group: String,
    cadence: Cadence,
    bisection: Bisection,
    retry: Duration,
    dev_capacity: Option<DevCapacity>,
    told: Told,
}

impl Committer {
    pub(crate) fn new(
        producer: TransactionalProducer,
        consumer: Control,
        desk: Arc<Desk>,
        runner: Arc<Runner>,
        interval_max: Duration,
        dev_capacity: Option<DevCapacity>,
    ) -> Self {
        let (cadence, bisection) = (Cadence::new(interval_max), Bisection::new(desk.limits().batch_results_max));
        let (group, told) = (runner.writer.topics.workers_group(), Told::new(runner.readiness.clone()));
        Self { producer, consumer, desk, runner, group, cadence, bisection, retry: RETRY_FIRST, dev_capacity, told }
    }

    /// Commits what gets ready until the desk is stopped. An error means that the session is over.
    pub(crate) fn run(mut self) -> Result<(), TxError> {
        let outcome = self.commit_batches();
        self.desk.abandon();
        outcome
    }

    fn commit_batches(&mut self) -> Result<(), TxError> {
        while let Some(turn) = self.desk.next_turn(&self.cadence, self.bisection.results_max()) {
            let batch = match turn {
                Turn::Commit(batch) => batch,
                Turn::Look(topic) => {
                    self.look(&topic);
                    continue;
                }
            };
            let capacity = self.dev_capacity.as_ref();
            if capacity.is_some_and(|capacity| capacity.check(Writes::StepResults).is_err()) {
                self.desk.aborted(batch);
                self.desk.pause(ROOM_INTERVAL);
                continue;
            }
            let (started, results) = (Instant::now(), batch.results.len());
            let outcome = match self.take_over_anew() {
                Ok(true) => self.transact(&batch),
                Ok(false) => {
                    self.desk.aborted(batch);
                    self.desk.pause(RETRY_MAX);
                    continue;
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => {
                    telemetry::transaction("committed", results, started.elapsed());
                    self.bisection.committed(results);
                    self.cadence.committed(results, Instant::now());
                    self.retry = RETRY_FIRST;
                    if self.desk.committed(&batch) {
                        self.consumer.wake();
                    }
                    self.told.forget(&self.desk);
                    stop_at("workers.after-commit");
                }
                Err(TxError::Abortable(cause) | TxError::Refused(cause)) => {
                    let refused = match self.producer.abort_with_cause() {
                        Ok(refused) => refused,
                        Err(error) => {
                            batch.results.iter().filter_map(Finished::leave).for_each(Leave::doubtful);
                            return Err(error);
                        }
                    };
                    telemetry::transaction("aborted", results, started.elapsed());
                    self.retry_later(batch, &cause, refused);
                }
                Err(error @ (TxError::Fenced | TxError::Fatal(_) | TxError::Retriable(_))) => {
                    telemetry::transaction("broken", results, started.elapsed());
                    // It is not known yet whether their holds were committed.
                    batch.results.iter().filter_map(Finished::leave).for_each(Leave::doubtful);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// After a lost connection a request of an earlier transaction may still be under way: the transactional id is
    /// taken over before the next one begins. What a zombie might take over so, the group's generation refuses. False
    /// if Kafka does not answer.
    fn take_over_anew(&mut self) -> Result<bool, TxError> {
        if !self.producer.was_disturbed() {
            return Ok(true);
        }
        match self.producer.renew(TAKE_OVER_TIMEOUT) {
            Ok(()) => {
                tracing::info!("a connection to Kafka was lost; the transactional id is taken over anew");
                Ok(true)
            }
            Err(TxError::Retriable(_)) => Ok(false),
            Err(TxError::Fenced) => Err(TxError::Fenced),
            Err(TxError::Abortable(cause) | TxError::Refused(cause) | TxError::Fatal(cause)) => {
                Err(TxError::Fatal(cause))
            }
        }
    }

    fn transact(&mut self, batch: &Batch) -> Result<(), TxError> {
        stop_at("workers.before-send");
        self.producer.begin()?;
        for record in batch.results.iter().flat_map(|finished| &finished.produced) {
            self.producer.send(record)?;
        }
        stop_at("workers.before-offsets");
        let offsets: Vec<OffsetCommit> = batch.positions.iter().map(offset_commit).collect();
        let Some(group) = self.consumer.group_metadata() else {
            return Err(TxError::Fatal(format!("the consumer of group {} has ended", self.group).into()));
        };
        self.producer.send_offsets(&offsets, &group)?;
        stop_at("workers.before-commit");
        if self.desk.is_doomed() {
            return Err(TxError::Abortable("partitions were lost while it ran".to_owned().into()));
        }
        self.producer.commit()
    }

    /// The transaction was aborted: its results are produced again, fewer at a time if one of them is to blame.
    fn retry_later(&mut self, batch: Batch, cause: &Cause, refused: Option<Cause>) {
        if let Some(refused) = refused {
            let batch = self.blame(batch, &refused.to_string());
            return self.desk.aborted(batch);
        }
        if let Some(undelivered) = self.producer.undelivered() {
            return self.set_aside(batch, &undelivered);
        }
        tracing::info!(
            %cause,
            results = batch.results.len(),
            "a transaction was aborted; its results are produced again"
        );
        self.desk.aborted(batch);
        self.desk.pause(self.retry);
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }

    /// Halves the size of the next batches. A result that is alone is replaced by its dead letter.
    fn blame(&mut self, mut batch: Batch, cause: &str) -> Batch {
        let results = batch.results.len();
        match (self.bisection.refused(results), batch.results.first_mut()) {
            (Verdict::Culprit, Some(finished)) => self.replace(finished, cause),
            _ => tracing::warn!(cause, results, "a record was refused; looking for it in half as many"),
        }
        batch
    }

    fn replace(&self, finished: &mut Finished, cause: &str) {
        let whole = finished.produced.iter().any(|record| record.value.is_some());
        if !finished.dead {
            finished.produced = vec![self.runner.dead_letter(&finished.record, &Refused::new(Class::Refused, cause))];
            finished.dead = true;
        } else if whole {
            // Kafka refuses its dead letter too: keep the failure's headers, with the record's place and the reason.
            for record in &mut finished.produced {
                (record.value, record.key) = (None, None);
                record.headers.retain(|(name, _)| name.starts_with(events::header::FAILURE_PREFIX));
            }
            tracing::error!(cause, "a dead letter was refused; it is kept without its value");
        } else {
            tracing::error!(cause, "an empty dead letter was refused; retrying");
            self.desk.pause(RETRY_MAX);
        }
    }
}

fn offset_commit((place, position): &(TopicPartition, crate::ledger::Position)) -> OffsetCommit {
    OffsetCommit {
        topic: place.topic.clone(),
        partition: place.partition,
        next_offset: position.offset,
        metadata: Some(position.metadata.clone()).filter(|metadata| !metadata.is_empty()),
    }
}
