//! The delivering thread: rows and the position that covers them, in one Kafka transaction after the other.
//!
//! Always holds: the position in Kafka says exactly which rows are in Kafka. After any failure the session ends, and
//! the next one reads the position again.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bus::bisection::{Bisection, Verdict};
use bus::{Cause, DevCapacity, TopicLimits, TransactionalProducer, TxError, Writes};
use events::Record;
use events::position::Position;
use events::topic::Topics;
use service_kit::{CancellationToken, Clock, Readiness};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::batch::{Batch, Pace};
use crate::config::Config;
use crate::cursor::Place;
use crate::manifest;
use crate::read::{Item, Row};
use crate::rest::Rests;
use crate::seam::{Seam, Seams};
use crate::stored::Stored;
use crate::telemetry;

mod misfits;

/// The shortest and the longest pause after an aborted transaction.
const ABORT_PAUSE: Duration = Duration::from_millis(100);
const ABORT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// The interval at which the broker of `meanwhile dev` is asked for room.
const ROOM_INTERVAL: Duration = Duration::from_millis(20);

/// The dependency by which readiness says that a topic takes nothing.
const DELIVERIES: &str = "deliveries";

/// The reason for which delivering ended.
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
    /// A request of an earlier transaction may still be under way, and would end or enter the next one.
    #[error("a connection to Kafka was lost; taking the transactional id over anew")]
    Disturbed,
    /// Not even the notice of a refused row can be delivered.
    #[error("the dead letters' topic refuses a row that its own topic refused: {0}")]
    NoDeadLetters(String),
}

/// The delivering half of a session.
pub(crate) struct Drain {
    pub(crate) producer: TransactionalProducer,
    pub(crate) items: mpsc::Receiver<Item>,
    pub(crate) position: Position,
    pub(crate) publication: Option<u32>,
    /// Stands on each position until the end: no relay may go on from there.
    pub(crate) unsettled: Option<String>,
    /// The server and the place to go on from, once all items are delivered and there will be no more.
    pub(crate) settle_at: Option<Position>,
    pub(crate) delivered: watch::Sender<Option<Position>>,
    pub(crate) limits: TopicLimits,
    pub(crate) topics: Topics,
    /// What takes the place of slips whose queue has no topic.
    pub(crate) rests: Rests,
    pub(crate) slot: String,
    pub(crate) config: Config,
    /// The room of the broker in this process; none with a real Kafka, which keeps unread records.
    pub(crate) dev_capacity: Option<DevCapacity>,
    pub(crate) clock: Clock,
    pub(crate) seams: Seams,
    pub(crate) stop: CancellationToken,
    pub(crate) runtime: Handle,
    /// Says which topic takes nothing.
    pub(crate) readiness: Readiness,
    /// True while it says so.
    pub(crate) is_waiting: bool,
}

#[expect(clippy::large_enum_variant, reason = "one at a time is moved, and a box would cost an allocation per row")]
enum Received {
    Item(Item),
    TimedOut,
    /// There will be no more items.
    Closed,
    Stopped,
}

enum Attempt {
    Committed,
    /// Aborted, but not because of a record, as far as Kafka says.
    Aborted(Cause),
    /// Aborted because of one of the records.
    Refused(Cause),
}

impl Drain {
    /// Delivers until it is stopped. Blocks: for a thread of its own.
    pub(crate) fn run(mut self) -> Result<(), DrainError> {
        let ended = self.deliver_all();
        // The next session finds out anew.
        self.waited();
        ended
    }

    fn deliver_all(&mut self) -> Result<(), DrainError> {
        let mut pace = Pace::new(self.config.transaction_interval_max(), Instant::now());
        let mut position_at = Instant::now();
        let mut idle = None;
        while let Some(batch) = self.collect(&pace, &mut idle, position_at) {
            let began = Instant::now();
            self.deliver(batch)?;
            pace.committed(began, began.elapsed());
            position_at = Instant::now();
        }
        match self.settle_at.take() {
            Some(position) if !self.stop.is_cancelled() => self.settle(&position),
            _ => Ok(()),
        }
    }

    /// Moves the position to that server and place: relays go on from there.
    fn settle(&mut self, to: &Position) -> Result<(), DrainError> {
        let Position { system_identifier, timeline, .. } = *to;
        self.position = Position { system_identifier, timeline, ..self.position };
        self.unsettled = None;
        let mut batch = Batch::default();
        batch.push(Item::Reached(Place::of(to)));
        self.deliver(batch)
    }

    /// Collects the next batch: rows as soon as there are any; no rows when it is time to note the end of an idle log.
    /// None: stopped, or there is no more.
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
                Received::Closed | Received::Stopped => return None,
            }
        }
        *idle = None;
        let rows_max = self.config.transaction_rows_max.min(manifest::ROWS_MAX);
        while !batch.is_full(rows_max, self.config.transaction_bytes_max) {
            match self.receive(Some(pace.next_at())) {
                Received::Item(item) => batch.push(item),
                Received::TimedOut | Received::Closed => break,
                Received::Stopped => return None,
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
                () = stop.cancelled() => Received::Stopped,
                item = items.recv() => item.map_or(Received::Closed, Received::Item),
                () = waited => Received::TimedOut,
            }
        })
    }

    /// Delivers a batch, in as many transactions as it takes. After an abort fewer rows go into the next one, until a
    /// row that is to blame is alone.
    fn deliver(&mut self, mut batch: Batch) -> Result<(), DrainError> {
        self.pass(Seam::BeforeSend)?;
        self.refuse_misfits(&mut batch.rows)?;
        let (rows, mut done, mut pause) = (batch.rows.len(), 0, ABORT_PAUSE);
        let mut bisection = Bisection::new(rows);
        loop {
            let upto = (done + bisection.results_max()).min(rows);
            let Some(place) = batch.place_after(upto) else { return Ok(()) };
            self.await_dev_capacity()?;
            match self.transact(&batch.rows[done..upto], place)? {
                Attempt::Committed => {
                    telemetry::delivered(&batch.rows[done..upto], self.clock.now_ms());
                    self.pass(Seam::BeforeAcknowledge)?;
                    self.delivered.send_replace(Some(self.position));
                    self.waited();
                    bisection.committed(upto - done);
                    (done, pause) = (upto, ABORT_PAUSE);
                    if done == rows {
                        return Ok(());
                    }
                }
                Attempt::Refused(cause) => {
                    self.tell_aborted(&cause);
                    if bisection.refused(upto - done) == Verdict::Culprit {
                        self.bury(&mut batch.rows[done], &cause)?;
                    }
                }
                Attempt::Aborted(cause) => {
                    self.tell_aborted(&cause);
                    // Those before it pass.
                    if !self.rest_of_deleted(&mut batch.rows[done..])?
                        && bisection.refused(upto - done) == Verdict::Culprit
                    {
                        self.wait_for(&batch.rows[done].record.topic, cause);
                    }
                    self.sleep(pause)?;
                    pause = (pause * 2).min(ABORT_PAUSE_MAX);
                }
            }
        }
    }

    /// Says that everything waits for this topic: rows are delivered in the order of their commits.
    fn wait_for(&mut self, topic: &str, cause: impl std::fmt::Display) {
        self.is_waiting = true;
        self.readiness.missing(DELIVERIES, format!("waiting for topic {topic}: {cause}"));
    }

    fn waited(&mut self) {
        if std::mem::take(&mut self.is_waiting) {
            self.readiness.ready(DELIVERIES);
        }
    }

    fn tell_aborted(&self, cause: &Cause) {
        telemetry::aborted();
        tracing::warn!(%cause, "a transaction was aborted; retrying with fewer rows");
    }

    /// One Kafka transaction: these rows, and the position after them.
    fn transact(&mut self, rows: &[Row], place: Place) -> Result<Attempt, DrainError> {
        // Only a whole session may take the id over: another relay may have it.
        if self.producer.was_disturbed() {
            return Err(DrainError::Disturbed);
        }
        let position = Position {
            end_lsn: place.end_lsn,
            partial: place.partial,
            last_row: place.last_row,
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
        for row in rows.iter().filter(|row| !row.is_there) {
            row.records().try_for_each(|record| self.producer.send(record))?;
        }
        self.producer.send(&self.position_record(rows, position))?;
        if self.seams.pass(Seam::BeforeCommit).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.producer.commit()?;
        Ok(ControlFlow::Continue(()))
    }

    fn position_record(&self, rows: &[Row], position: &Position) -> Record {
        // The broker in this process keeps nothing, so nothing is ever compared with it.
        let named = !rows.is_empty() && self.dev_capacity.is_none();
        let names = || rows.iter().map(|row| (row.origin, row.name()));
        let Self { publication, unsettled, .. } = self;
        let stored = Stored { position: *position, publication: *publication, unsettled: unsettled.clone() };
        stored.record(&self.topics, &self.slot, named.then(|| manifest::encode(names())))
    }

    /// Waits until the broker in this process has room. Rows are safe in Postgres meanwhile.
    fn await_dev_capacity(&self) -> Result<(), DrainError> {
        while self.dev_capacity.as_ref().is_some_and(|capacity| capacity.check(Writes::OutboxRows).is_err()) {
            self.sleep(ROOM_INTERVAL)?;
        }
        Ok(())
    }

    fn sleep(&self, time: Duration) -> Result<(), DrainError> {
        let sleeping = self.stop.run_until_cancelled(tokio::time::sleep(time));
        self.runtime.block_on(sleeping).ok_or(DrainError::Stopped)
    }

    fn pass(&self, seam: Seam) -> Result<(), DrainError> {
        if self.seams.pass(seam).is_break() { Err(DrainError::Stopped) } else { Ok(()) }
    }
}

/// The reason for the session's end. "Not done yet" means here that the waiting was interrupted.
fn ended(error: TxError) -> DrainError {
    match error {
        TxError::Fenced => DrainError::Fenced,
        TxError::Retriable(_) => DrainError::Stopped,
        error @ (TxError::Fatal(_) | TxError::Abortable(_) | TxError::Refused(_)) => DrainError::Broken(error),
    }
}
