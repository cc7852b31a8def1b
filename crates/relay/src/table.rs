//! Reads the outbox from its table, for a Postgres that lets us read no log: waits for its turn, then hands rows over
//! in the order of transaction ids. A lock of Postgres takes the slot's part in rule 1, and
//! [`events::position::LastRow`] that of the place in the log.

use std::time::Duration;

use anyhow::anyhow;
use bus::TransactionalProducer;
use events::position::{LastRow, Position};
use store::polling::{self, Reader};
use store::reader;
use store::unrelayed::Row as StoredRow;
use tokio::sync::Notify;

use crate::Relay;
use crate::cursor::Place;
use crate::ended::SessionError;
use crate::fit::{self, Mismatch};
use crate::read::{Buffer, Item, ReadError, Row};
use crate::stored::{SWITCHED, Stored};

/// Rows, and bytes, of one page. Beside the buffer one page is in memory.
const PAGE_ROWS_MAX: u32 = 2_000;
const PAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The pauses while rows wait for a transaction that is open: most are over at once.
const WAITING_PAUSE: Duration = Duration::from_millis(1);
const WAITING_PAUSE_MAX: Duration = Duration::from_millis(50);
/// The pause before listening anew after an error.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);

impl Relay {
    /// Waits until no other relay reads, then takes the lock. Calls `standing_by` each time another relay has it.
    pub(crate) async fn take_table(&self, silence_ms: u64, standing_by: impl Fn()) -> Result<Reader, store::Error> {
        let mut reader = Reader::connect(&self.pool, silence_ms).await?;
        while !reader.lock(&self.slot).await? {
            standing_by();
            tokio::time::sleep(Duration::from_millis(self.settings.config.standby_interval_ms)).await;
        }
        Ok(reader)
    }

    /// Step 3 of a session that polls.
    pub(crate) async fn settle_last_row(
        &self,
        reader: &mut Reader,
        producer: TransactionalProducer,
    ) -> Result<(TransactionalProducer, Position), SessionError> {
        let reading = async {
            self.check_topics().await?;
            self.read_position().await
        };
        let Some(stored) = self.while_present(reader, reading).await? else {
            let first = self.first_row(reader).await?;
            tracing::info!(slot = self.slot, "no position yet: beginning with what the outbox was not delivered of");
            return Ok((producer, first));
        };
        match self.mismatch_of_row(&stored, reader).await? {
            None => {
                // A process that ended after its commit has not told it, and no row may come that would.
                self.delivered.send_if_modified(|known| known.replace(stored.position) != Some(stored.position));
                Ok((producer, stored.position))
            }
            Some(mismatch) => Err(SessionError::of_mismatch(&mismatch)),
        }
    }

    /// Waits for something else, and shows Postgres meanwhile that we live: else the lock would be another relay's.
    pub(crate) async fn while_present<T>(
        &self,
        reader: &mut Reader,
        waiting: impl Future<Output = Result<T, SessionError>>,
    ) -> Result<T, SessionError> {
        let interval = Duration::from_millis(self.settings.config.status_interval_ms);
        present(reader, interval, waiting).await?
    }

    /// The position of a relay that has none.
    pub(crate) async fn first_row(&self, reader: &mut Reader) -> Result<Position, SessionError> {
        Ok(fit::first_row(reader.history().await?, reader::confirmed(&self.pool).await?))
    }

    /// The reason for which a relay that polls may not go on from this position on this server.
    pub(crate) async fn mismatch_of_row(
        &self,
        stored: &Stored,
        reader: &mut Reader,
    ) -> Result<Option<Mismatch>, SessionError> {
        if let Some(reason) = &stored.unsettled {
            return Ok(Some(Mismatch::Unsettled(reason.clone())));
        }
        if let Err(mismatch) = fit::check_history(&stored.position, reader.history().await?) {
            return Ok(Some(mismatch));
        }
        let Some(last) = stored.position.last_row else {
            let now = store::slot::identity(&self.pool).await?.current_lsn;
            let ahead = fit::check_place(&stored.position, now);
            return Ok(Some(ahead.err().unwrap_or_else(|| Mismatch::Unsettled(SWITCHED.to_owned()))));
        };
        let confirmed = reader::confirmed(&self.pool).await?;
        Ok(fit::check_row(last, reader.knows(last).await?, confirmed).err())
    }

    /// Reads until the connection ends or the drain is gone; the latter is `Ok`. Hears of new rows meanwhile.
    pub(crate) async fn read_table(
        &self,
        reader: &mut Reader,
        from: LastRow,
        buffer: &Buffer,
    ) -> Result<(), ReadError> {
        let news = Notify::new();
        let interval = Duration::from_millis(self.settings.config.status_interval_ms);
        let mut reading = Reading { reader, last: from, buffer, interval };
        tokio::select! {
            read = reading.read(&news) => read,
            never = self.listen(&news) => match never {},
        }
    }

    /// Passes on what is heard; listens anew after errors. Without it, rows are found a little later.
    async fn listen(&self, news: &Notify) -> std::convert::Infallible {
        loop {
            if let Ok(mut listener) = polling::listen(&self.pool).await {
                news.notify_one();
                while listener.heard().await.is_ok() {
                    news.notify_one();
                }
            }
            tokio::time::sleep(LISTEN_PAUSE).await;
        }
    }
}

struct Reading<'a> {
    reader: &'a mut Reader,
    last: LastRow,
    buffer: &'a Buffer,
    /// The longest time without a look, and without a sign of life.
    interval: Duration,
}

impl Reading<'_> {
    async fn read(&mut self, news: &Notify) -> Result<(), ReadError> {
        let mut pause = WAITING_PAUSE;
        loop {
            let page = self.reader.page(self.last, PAGE_ROWS_MAX, PAGE_BYTES_MAX).await?;
            if !page.rows.is_empty() {
                pause = WAITING_PAUSE;
            }
            for row in page.rows {
                if !self.hand_over(row).await? {
                    return Ok(());
                }
            }
            if page.has_more {
                continue;
            }
            let look = if page.has_waiting { pause.min(self.interval) } else { self.interval };
            pause = (pause * 2).min(WAITING_PAUSE_MAX);
            tokio::select! {
                () = news.notified() => {}
                () = tokio::time::sleep(look) => {}
            }
        }
    }

    /// Hands a row over as soon as there is room; false if the drain is gone. Postgres hears meanwhile that we live.
    async fn hand_over(&mut self, row: StoredRow) -> Result<bool, ReadError> {
        self.last = polling::place(&row);
        let (place, committed_at_ms) = (Place::after_row(self.last), row.origin.began_at_ms());
        let StoredRow { origin, record, .. } = row;
        let buffer = self.buffer;
        let handing = async {
            let room = buffer.room(&record).await;
            let row = Row::new(record, origin, place, committed_at_ms, room);
            buffer.send(Item::Row(row)).await
        };
        Ok(present(self.reader, self.interval, handing).await?)
    }
}

/// Waits for something else, with a sign of life at each interval.
async fn present<T>(
    reader: &mut Reader,
    interval: Duration,
    waiting: impl Future<Output = T>,
) -> Result<T, store::Error> {
    tokio::pin!(waiting);
    loop {
        tokio::select! {
            biased;
            done = &mut waiting => return Ok(done),
            () = tokio::time::sleep(interval) => reader.stay().await?,
        }
    }
}

impl SessionError {
    /// A position that does not fit; the remedy is a person's, or a relay's own.
    pub(crate) fn of_mismatch(mismatch: &Mismatch) -> Self {
        if let Mismatch::Unsettled(reason) = mismatch
            && let Some(reason) = crate::stored::settled_by_relays(reason)
        {
            return Self::LeftOut(reason);
        }
        let remedy = fit::REMEDY;
        Self::Position(anyhow!("{mismatch}. The relay delivers nothing until this is settled: {remedy}"))
    }
}
