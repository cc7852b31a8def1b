//! The reading task: from the stream into a bounded buffer. It waits while the buffer is full; the client keeps telling
//! Postgres meanwhile that it lives.

use std::sync::Arc;

use events::Record;
use events::position::{Lsn, Position};
use pgwire_replication::{PgWireError, ReplicationClient, ReplicationEvent};
use store::unrelayed::Origin;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::cursor::{Cursor, Disorder, Place};
use crate::manifest::RowName;
use crate::row::{RowError, RowReader};
use crate::stream::StreamError;

/// Microseconds between the Unix epoch and 2000-01-01, from which Postgres counts.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// One item for the drain, in the stream's order.
#[derive(Debug)]
pub(crate) enum Item {
    /// A row to deliver.
    Row(Row),
    /// All rows before this place were handed out.
    Reached(Place),
}

/// A row to deliver.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) record: Record,
    /// Who wrote it.
    pub(crate) origin: Origin,
    /// Present where another record takes its place.
    replaced: Option<Box<Replaced>>,
    /// Kafka has its record already: it is named and not sent.
    pub(crate) is_there: bool,
    /// The place after this row.
    pub(crate) place: Place,
    /// The commit time of its transaction, in milliseconds since the Unix epoch, by Postgres' clock.
    pub(crate) committed_at_ms: i64,
    /// Its share of the buffer.
    pub(crate) _room: Option<OwnedSemaphorePermit>,
}

impl Row {
    /// A row to be sent as it is. `room` is its share of the buffer.
    pub(crate) fn new(
        record: Record,
        origin: Origin,
        place: Place,
        committed_at_ms: i64,
        room: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { record, origin, replaced: None, is_there: false, place, committed_at_ms, _room: room }
    }

    /// The name by which it is known in the outbox and on Kafka.
    pub(crate) fn name(&self) -> RowName {
        self.replaced.as_ref().map_or_else(|| RowName::of(&self.record), |replaced| replaced.name)
    }

    /// The records to send, in their order.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.replaced.iter().filter_map(|replaced| replaced.told.as_ref()).chain([&self.record])
    }

    /// Another record takes its place; `told` tells why, and goes before it.
    pub(crate) fn replace(&mut self, record: Record, told: Option<Record>) {
        self.replaced = Some(Box::new(Replaced { name: self.name(), told }));
        self.record = record;
    }
}

/// A row in whose place another record is sent.
#[derive(Debug)]
struct Replaced {
    name: RowName,
    /// Tells why; it is sent before that record.
    told: Option<Record>,
}

/// The reason for which reading ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The stream ended.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The stream does what the protocol rules out.
    #[error(transparent)]
    Disorder(#[from] Disorder),
    /// The stream carries something that is no outbox row.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The table cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<PgWireError> for ReadError {
    fn from(error: PgWireError) -> Self {
        Self::Stream(error.into())
    }
}

/// The bounded buffer between reading and delivering.
pub(crate) struct Buffer {
    items: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    room_bytes: u32,
}

impl Buffer {
    pub(crate) fn new(rows_max: usize, bytes_max: usize) -> (Self, mpsc::Receiver<Item>) {
        let (items, received) = mpsc::channel(rows_max.max(1));
        let room_bytes = u32::try_from(bytes_max).unwrap_or(u32::MAX);
        (Self { items, room: Arc::new(Semaphore::new(room_bytes as usize)), room_bytes }, received)
    }

    /// Hands an item over; false if the drain is gone.
    pub(crate) async fn send(&self, item: Item) -> bool {
        self.items.send(item).await.is_ok()
    }

    /// Waits for room. A row larger than half the buffer takes half of it: one more is held back by the reader.
    pub(crate) async fn room(&self, record: &Record) -> Option<OwnedSemaphorePermit> {
        let wanted = u32::try_from(record.size_bytes()).unwrap_or(u32::MAX).min(self.room_bytes / 2);
        Arc::clone(&self.room).acquire_many_owned(wanted).await.ok()
    }
}

/// Reads until the stream ends or the drain is gone; the latter is `Ok`.
pub(crate) async fn read(
    client: &mut ReplicationClient,
    position: &Position,
    buffer: &Buffer,
    delivered: &mut watch::Receiver<Option<Position>>,
) -> Result<(), ReadError> {
    let mut reading = Reading { cursor: Cursor::new(position), rows: RowReader::default(), held: None };
    client.update_applied_lsn(position.end_lsn.0.into());
    loop {
        // Postgres sends something every second at least (half of wal_sender_timeout), so this is never late by more.
        if delivered.has_changed().unwrap_or(false)
            && let Some(position) = *delivered.borrow_and_update()
        {
            client.update_applied_lsn(position.end_lsn.0.into());
        }
        let Some(event) = client.recv().await? else {
            return Err(StreamError::Unreachable(anyhow::anyhow!("the stream was closed")).into());
        };
        if let Some(item) = reading.take_in(event, buffer).await?
            && !buffer.send(item).await
        {
            return Ok(());
        }
    }
}

struct Reading {
    cursor: Cursor,
    rows: RowReader,
    /// The newest row. It is held until the next event, which follows at once, says whether its commit ends with it.
    held: Option<Row>,
}

impl Reading {
    async fn take_in(&mut self, event: ReplicationEvent, buffer: &Buffer) -> Result<Option<Item>, ReadError> {
        match event {
            ReplicationEvent::Begin { final_lsn, commit_time_micros, .. } => {
                self.cursor.begin(Lsn(final_lsn.as_u64()), commit_time_micros)?;
                Ok(None)
            }
            ReplicationEvent::XLogData { data, .. } => {
                let Some((origin, record)) = self.rows.read(&data)? else { return Ok(None) };
                let Some((place, committed_at)) = self.cursor.row()? else { return Ok(None) };
                let room = buffer.room(&record).await;
                let committed_at_ms = committed_at.saturating_add(POSTGRES_EPOCH_MICROS) / 1_000;
                let row = Row::new(record, origin, place, committed_at_ms, room);
                Ok(self.held.replace(row).map(Item::Row))
            }
            ReplicationEvent::Commit { end_lsn, .. } => {
                let place = self.cursor.commit(Lsn(end_lsn.as_u64()))?;
                Ok(place.map(|place| match self.held.take() {
                    Some(row) => Item::Row(Row { place, ..row }),
                    None => Item::Reached(place),
                }))
            }
            ReplicationEvent::KeepAlive { wal_end, .. } => {
                Ok(self.cursor.idle(Lsn(wal_end.as_u64())).map(Item::Reached))
            }
            ReplicationEvent::Message { .. } | ReplicationEvent::StoppedAt { .. } => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::headers::Headers;

    #[test]
    fn a_row_keeps_its_name_whatever_takes_its_place() {
        let record = |topic: &str, id: &str| {
            let headers = Headers::from([(events::header::MESSAGE_ID, Some(id))]);
            Record { topic: topic.to_owned(), headers, ..Record::default() }
        };
        let origin = Origin { txid: 1, began_micros: 0 };
        let mut row = Row::new(record("steps.q", "job::1"), origin, Place::after(Lsn(1)), 0, None);
        let name = row.name();
        row.replace(record("waits", "job::2:hold"), Some(record("events", "job::1:0")));
        let topics = |row: &Row| row.records().map(|record| record.topic.clone()).collect::<Vec<_>>();
        assert_eq!((row.name(), topics(&row)), (name, vec!["events".to_owned(), "waits".to_owned()]));
        row.replace(record("dead-letters", "job::2:hold"), None);
        assert_eq!((row.name(), topics(&row)), (name, vec!["dead-letters".to_owned()]));
        assert_eq!(name, RowName::of(&record("steps.q", "job::1")));
    }
}
