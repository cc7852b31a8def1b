//! The delivering thread: rows and the position that covers them, in one Kafka transaction after the other.
//!
//! Always holds: the position in Kafka says exactly which rows are in Kafka. Whatever goes wrong, the session ends, and
//! the next one reads the position again.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bus::bisection::{Bisection, Verdict};
use bus::{Cause, DevCapacity, TopicLimits, TransactionalProducer, TxError, Writes};
use events::Record;
use events::dead_letter::{Class, Refused};
use events::position::Position;
use events::topic::Topics;
use service_kit::{CancellationToken, Clock};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::batch::{Batch, Pace};
use crate::config::Config;
use crate::cursor::Place;
use crate::read::{Item, Row};
use crate::refuse;
use crate::seam::{Seam, Seams};
use crate::telemetry;

/// One row alone may abort its transaction so often, while others pass, before it is the row's own fault.
const STRIKES_MAX: u32 = 5;
/// After an aborted transaction.
const ABORT_PAUSE: Duration = Duration::from_millis(100);

/// Between two looks whether the broker of `meanwhile dev` has room again.
const ROOM_INTERVAL: Duration = Duration::from_millis(20);

/// Why delivering ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DrainError {
    /// Another relay has taken over.
    #[error("another relay has taken over")]
    Fenced,
    /// The producer is broken.
    #[error("delivering cannot go on")]
    Broken(#[source] TxError),
    /// Shutdown, or the stream ended.
    #[error("stopped")]
    Stopped,
    /// Not even the notice of a refused row can be delivered.
    #[error("the dead letters' topic refuses a row that its own topic refused: {0}")]
    NoDeadLetters(String),
}

/// The delivering half of a session.
pub(crate) struct Drain {
    pub(crate) producer: TransactionalProducer,
    pub(crate) items: mpsc::Receiver<Item>,
    pub(crate) position: Position,
    pub(crate) delivered: watch::Sender<Option<Position>>,
    pub(crate) limits: TopicLimits,
    pub(crate) topics: Topics,
    pub(crate) slot: String,
    pub(crate) config: Config,
    /// Of the broker in this process; a real Kafka keeps what is not read.
    pub(crate) dev_capacity: Option<DevCapacity>,
    pub(crate) clock: Clock,
    pub(crate) seams: Seams,
    pub(crate) stop: CancellationToken,
    pub(crate) runtime: Handle,
    /// Why the last transaction was aborted.
    pub(crate) last_abort: Option<Cause>,
}

enum Received {
    Item(Item),
    TimedOut,
    Ended,
}

enum Attempt {
    Committed,
    /// Not because of a record, as far as Kafka says.
    Aborted(Cause),
    /// Because of one of the records.
    Refused(Cause),
}

impl Drain {
    /// Delivers until it is stopped. Blocks: for a thread of its own.
    pub(crate) fn run(mut self) -> Result<(), DrainError> {
        let mut pace = Pace::new(self.config.transaction_interval_max(), Instant::now());
        let mut position_at = Instant::now();
        let mut idle = None;
        while let Some(batch) = self.collect(&pace, &mut idle, position_at) {
            let began = Instant::now();
            self.deliver(batch)?;
            pace.committed(began, began.elapsed());
            position_at = Instant::now();
        }
        Ok(())
    }

    /// The next batch: rows as soon as there are any; without rows when it is time to note how far an idle log is.
    /// None: stopped.
    fn collect(&mut self, pace: &Pace, idle: &mut Option<Place>, position_at: Instant) -> Option<Batch> {
        let mut batch = Batch::default();
        while batch.rows.is_empty() {
            let idle_until = idle.map(|_| position_at + self.config.idle_position_interval());
            match self.receive(idle_until) {
                Received::Item(Item::Reached(place)) => *idle = Some(place),
                Received::Item(row) => batch.push(row),
                Received::TimedOut => {
                    batch.push(Item::Reached(idle.take()?));
                    return Some(batch);
                }
                Received::Ended => return None,
            }
        }
        *idle = None;
        while !batch.is_full(self.config.transaction_rows_max, self.config.transaction_bytes_max) {
            match self.receive(Some(pace.next_at())) {
                Received::Item(item) => batch.push(item),
                Received::TimedOut => break,
                Received::Ended => return None,
            }
        }
        Some(batch)
    }

    fn receive(&mut self, until: Option<Instant>) -> Received {
        if let Ok(item) = self.items.try_recv() {
            return Received::Item(item);
        }
        let (stop, items) = (&self.stop, &mut self.items);
        self.runtime.block_on(async {
            let waited = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => Received::Ended,
                item = items.recv() => item.map_or(Received::Ended, Received::Item),
                () = waited => Received::TimedOut,
            }
        })
    }

    /// Delivers all of it, in as many transactions as it takes. Fewer rows go into the next one after an abort, until a
    /// row that is to blame is alone.
    fn deliver(&mut self, mut batch: Batch) -> Result<(), DrainError> {
        self.pass(Seam::BeforeSend)?;
        self.refuse_misfits(&mut batch.rows)?;
        let (rows, mut done, mut strikes) = (batch.rows.len(), 0, 0);
        let mut bisection = Bisection::new(rows);
        loop {
            let upto = (done + bisection.results_max()).min(rows);
            let Some(place) = batch.place_after(upto) else { return Ok(()) };
            self.await_dev_capacity()?;
            let attempt = self.transact(&batch.rows[done..upto], place)?;
            if let Attempt::Committed = attempt {
                telemetry::delivered(&batch.rows[done..upto], self.clock.now_ms());
                self.pass(Seam::BeforeAcknowledge)?;
                self.delivered.send_replace(Some(self.position));
                bisection.committed(upto - done);
                (done, strikes) = (upto, 0);
                if done == rows {
                    return Ok(());
                }
                continue;
            }
            let verdict = bisection.refused(upto - done);
            strikes += self.aborted(attempt, verdict)?;
            if strikes >= STRIKES_MAX {
                self.bury(&mut batch.rows[done])?;
                strikes = 0;
            }
        }
    }

    /// After an aborted transaction: how many strikes it counts against the row that was alone in it, if one was.
    fn aborted(&mut self, attempt: Attempt, verdict: Verdict) -> Result<u32, DrainError> {
        telemetry::aborted();
        let (cause, is_refused) = match attempt {
            Attempt::Committed => return Ok(0),
            Attempt::Aborted(cause) => (cause, false),
            Attempt::Refused(cause) => (cause, true),
        };
        tracing::warn!(%cause, "a transaction was aborted; retrying with fewer rows");
        self.last_abort = Some(cause);
        let is_alone = verdict == Verdict::Culprit;
        if is_refused {
            return Ok(if is_alone { STRIKES_MAX } else { 0 });
        }
        self.pause()?;
        Ok(u32::from(is_alone && self.others_pass()?))
    }

    /// One Kafka transaction: these rows, and the position after them.
    fn transact(&mut self, rows: &[Row], place: Place) -> Result<Attempt, DrainError> {
        let position = Position {
            end_lsn: place.end_lsn,
            partial: place.partial,
            relayed: self.position.relayed + rows.len() as u64,
            at_ms: self.clock.now_ms(),
            ..self.position
        };
        match self.produce(rows, &position) {
            Ok(ControlFlow::Continue(())) => {
                self.position = position;
                self.pass(Seam::AfterCommit)?;
                Ok(Attempt::Committed)
            }
            Ok(ControlFlow::Break(())) => Err(DrainError::Stopped),
            Err(TxError::Abortable(cause)) => {
                self.producer.abort().map_err(ended)?;
                Ok(Attempt::Aborted(cause))
            }
            Err(TxError::Refused(cause)) => {
                self.producer.abort().map_err(ended)?;
                Ok(Attempt::Refused(cause))
            }
            Err(error) => Err(ended(error)),
        }
    }

    fn produce(&mut self, rows: &[Row], position: &Position) -> Result<ControlFlow<()>, TxError> {
        self.producer.begin()?;
        for row in rows {
            self.producer.send(&row.record)?;
        }
        self.producer.send(&self.position_record(position))?;
        if self.seams.pass(Seam::BeforeCommit).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.producer.commit()?;
        Ok(ControlFlow::Continue(()))
    }

    fn position_record(&self, position: &Position) -> Record {
        let (key, value) = (Some(self.slot.clone().into_bytes()), Some(position.to_json()));
        Record { topic: self.topics.relay(), key, value, headers: Vec::new() }
    }

    /// Whether Kafka takes a transaction without rows now: then it was not Kafka that failed.
    fn others_pass(&mut self) -> Result<bool, DrainError> {
        let place = Place { end_lsn: self.position.end_lsn, partial: self.position.partial };
        Ok(matches!(self.transact(&[], place)?, Attempt::Committed))
    }

    /// Replaces rows that their topic would not take by their dead letters.
    fn refuse_misfits(&mut self, rows: &mut [Row]) -> Result<(), DrainError> {
        for row in rows {
            if !self.limits.is_known_to_fit(&row.record.topic, row.record.size_bytes())
                && let Err(refused) = self.judge(&row.record)?
            {
                self.replace(row, refused)?;
            }
        }
        Ok(())
    }

    /// A row that aborts every transaction it is in, alone.
    fn bury(&mut self, row: &mut Row) -> Result<(), DrainError> {
        let cause = self.last_abort.take().map_or_else(String::new, |cause| cause.to_string());
        if row.record.topic == self.topics.dead_letters() {
            if row.record.value.is_none() {
                return Err(DrainError::NoDeadLetters(cause));
            }
            row.record = refuse::dead_letter_in_short(&self.topics, &row.record, self.clock.now_ms());
            return Ok(());
        }
        let refused = refuse::by_broker(&row.record.topic, &cause);
        self.replace(row, refused)
    }

    fn replace(&mut self, row: &mut Row, refused: Refused) -> Result<(), DrainError> {
        let (class, reason) = (refused.class.as_str(), &refused.reason);
        tracing::error!(topic = row.record.topic, class, reason, "a row goes to the dead letters");
        telemetry::refused(class);
        let record = std::mem::take(&mut row.record);
        let letter = refuse::dead_letter(&self.topics, record, &refused, self.clock.now_ms());
        row.record = match self.judge(&letter)? {
            Err(Refused { class: Class::TooLarge, .. }) => {
                refuse::dead_letter_in_short(&self.topics, &letter, self.clock.now_ms())
            }
            Err(refused) => return Err(DrainError::NoDeadLetters(refused.reason)),
            Ok(()) => letter,
        };
        Ok(())
    }

    fn judge(&self, record: &Record) -> Result<Result<(), Refused>, DrainError> {
        let check = refuse::check(&self.limits, self.config.topic_wait(), record);
        let judging = self.stop.run_until_cancelled(check);
        self.runtime.block_on(judging).ok_or(DrainError::Stopped)
    }

    /// Rows are safe where they are until there is room for them.
    fn await_dev_capacity(&self) -> Result<(), DrainError> {
        while self.dev_capacity.as_ref().is_some_and(|capacity| capacity.check(Writes::OutboxRows).is_err()) {
            let waiting = self.stop.run_until_cancelled(tokio::time::sleep(ROOM_INTERVAL));
            self.runtime.block_on(waiting).ok_or(DrainError::Stopped)?;
        }
        Ok(())
    }

    fn pause(&self) -> Result<(), DrainError> {
        let pausing = self.stop.run_until_cancelled(tokio::time::sleep(ABORT_PAUSE));
        self.runtime.block_on(pausing).ok_or(DrainError::Stopped)
    }

    fn pass(&self, seam: Seam) -> Result<(), DrainError> {
        if self.seams.pass(seam).is_break() { Err(DrainError::Stopped) } else { Ok(()) }
    }
}

/// Why the session ends. "Not done yet" comes only when the waiting was interrupted.
fn ended(error: TxError) -> DrainError {
    match error {
        TxError::Fenced => DrainError::Fenced,
        TxError::Retriable(_) => DrainError::Stopped,
        error @ (TxError::Fatal(_) | TxError::Abortable(_) | TxError::Refused(_)) => DrainError::Broken(error),
    }
}
