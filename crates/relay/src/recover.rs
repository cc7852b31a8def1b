//! `meanwhile relay recover`: after a failover, a restore or a lost slot, sends what Kafka lacks of the outbox, and
//! lets the relays go on.
//!
//! It bars every relay: the position on Kafka is marked as unsettled, which all of them refuse. It makes the slot
//! anew; the snapshot that comes with it has exactly the rows that the slot will not stream. It takes the slot, fences
//! whoever delivered, compares that snapshot with the names that the positions on Kafka carry, and sends what is
//! missing, in transactions that name it in their turn. The last one moves the position to where the slot begins. Where
//! the table is polled, the lock and the begin of the oldest open transaction take the slot's part.
//!
//! Always holds: a recovery that is cut off anywhere is begun again, and sends the rest.

mod journal;
mod plan;
mod report;

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bus::TransactionalProducer;
use events::position::{LastRow, Lsn, Position};
use service_kit::CancellationToken;
use store::polling::{self, Reader};
use store::reader::{self, Way};
use store::slot::{self, SlotError};
use store::unrelayed::{self, Snapshot};

pub use self::report::Report;
use crate::Relay;
use crate::cursor::Place;
use crate::ended::SessionError;
use crate::fit;
use crate::read::{Buffer, Item, Row};
use crate::recover::plan::{Missing, Plan};
use crate::stored::{BEGUN, Stored, settled_by_relays};
use crate::stream::{self, Stream, StreamError};

/// Kafka must answer within this time.
const REACH_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before the slot is tried again that a relay has at this moment.
const SLOT_PAUSE: Duration = Duration::from_millis(100);
/// The time that transactions have to end which were open at the begin.
const ENDED_TIMEOUT: Duration = Duration::from_secs(120);
/// Relays that look whether they may go on come between; they do so ever more rarely.
const BAR_ATTEMPTS_MAX: u32 = 20;
const BAR_PAUSE: Duration = Duration::from_millis(300);
/// The reason where there is no other.
const FORCED: &str = "asked for by hand; the relay's position fits this server";

/// The answer to rows of a time of which Kafka does not name all that it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Older {
    /// Change nothing.
    #[default]
    Refuse,
    /// They were delivered then.
    Delivered,
    /// They were not.
    Missing,
}

/// The operator's choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// Compare even where a relay can go on by itself: the stream may have left rows out.
    pub force: bool,
    /// The answer for rows that nothing is known of.
    pub older: Older,
}

impl Relay {
    /// Looks whether a relay can go on by itself; if not, sends what is missing and settles the position.
    ///
    /// # Errors
    /// A server is away or refuses, or another relay or recovery came between. Calling again is safe.
    pub async fn recover(&self, options: Options, shutdown: &CancellationToken) -> anyhow::Result<Report> {
        self.admin.reachable(REACH_TIMEOUT).await.context("Kafka is not reachable")?;
        if self.look_up_way().await? == Way::Logical {
            *self.publication.lock() = Some(slot::check_server(&self.pool).await?);
        }
        self.check_topics().await?;
        match self.reason().await? {
            None if options.force => self.recover_from(FORCED.to_owned(), options, shutdown).await,
            None => Ok(Report::default()),
            Some(reason) => self.recover_from(reason, options, shutdown).await,
        }
    }

    /// [`Relay::recover`] for this reason, also where the position fits.
    pub(crate) async fn recover_from(
        &self,
        reason: String,
        options: Options,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Report> {
        let mut outbox = Snapshot::take(&self.pool, None).await?;
        let plan = self.compare(&mut outbox, options.older).await?;
        if options.dry_run || (plan.rows_older > 0 && options.older == Older::Refuse) {
            let mut report = Report { reason: Some(reason), ..Report::of(&plan) };
            let mut missing = Missing::new(&plan);
            while let Some(rows) = missing.next(&mut outbox).await? {
                rows.iter().for_each(|row| report.note(&row.record, plan.ahead.knows(&row.record)));
            }
            return Ok(report);
        }
        drop(outbox);
        let mark = settled_by_relays(&reason).unwrap_or(BEGUN);
        let report = match self.look_up_way().await? {
            Way::Logical => self.settle(options, mark, shutdown).await?,
            Way::Polling => self.settle_rows(options, mark, shutdown).await?,
        };
        Ok(Report { reason: Some(reason), ..report })
    }

    /// The reason for which no relay can go on from the position; none if one can.
    async fn reason(&self) -> anyhow::Result<Option<String>> {
        if self.look_up_way().await? == Way::Polling {
            let Some(stored) = self.read_position().await? else { return Ok(None) };
            let mut reader = Reader::connect(&self.pool, 0).await?;
            let mismatch = self.mismatch_of_row(&stored, &mut reader).await?;
            return Ok(mismatch.map(|mismatch| mismatch.to_string()));
        }
        let confirmed_lsn = match slot::status(&self.pool, &self.slot).await {
            Ok(status) => Lsn(status.confirmed_flush_lsn),
            Err(error @ (SlotError::Missing { .. } | SlotError::Invalidated { .. })) => {
                return Ok(Some(error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let Some(stored) = self.read_position().await? else { return Ok(None) };
        let server = stream::look(&self.database, &self.slot, &self.settings.config).await?;
        let stored = self.in_common(stored, &server).await?;
        let mismatch = self.mismatch(&stored, &fit::Server { confirmed_lsn, ..server }).await?;
        Ok(mismatch.map(|mismatch| mismatch.to_string()))
    }

    async fn settle(&self, options: Options, mark: &str, shutdown: &CancellationToken) -> anyhow::Result<Report> {
        self.bar(mark, shutdown).await?;
        // Before the slot: else what is set aside in between would not be seen.
        let _guard = unrelayed::guard(&self.pool).await?;
        let fresh = stream::renew(&self.database, &self.slot, &self.settings.config).await?;
        let mut outbox = Snapshot::take(&self.pool, Some(&fresh.snapshot)).await?;
        let begins_at = fresh.begins_at;
        drop(fresh);
        let stream = self.take_slot().await?;
        if stream.server.confirmed_lsn != begins_at {
            bail!("slot {} was made anew by another process meanwhile; run it again", self.slot);
        }
        let producer = self.take_over(shutdown).await?;
        let at = fit::first(&stream.server);
        let sent = self.send_missing(&mut outbox, producer, at, options, mark, shutdown).await;
        stream.client.stop();
        sent
    }

    /// The same where the table is polled. The position moves to the begin of the oldest transaction that is open once
    /// all are over that were when the relays were barred: until then such a one may have rows on Kafka beyond it.
    async fn settle_rows(&self, options: Options, mark: &str, shutdown: &CancellationToken) -> anyhow::Result<Report> {
        self.bar(mark, shutdown).await?;
        let mut reader = self.take_table(0, || ()).await?;
        let delivered_below = polling::horizon(&self.pool).await?.next;
        let mut outbox = self.ended_snapshot(delivered_below).await?;
        let producer = self.take_over(shutdown).await?;
        let last = LastRow { txid: outbox.ended_below().unwrap_or_default(), ..LastRow::default() };
        // The database first: a position before the first row of a transaction counts only with this.
        reader::settle(&self.pool, last).await?;
        let at = fit::first_row(reader.history().await?, last);
        let sent = self.send_missing(&mut outbox, producer, at, options, mark, shutdown).await;
        reader.close().await;
        sent
    }

    /// The outbox up to the oldest transaction that is open, once none is open that began before this one.
    async fn ended_snapshot(&self, txid: u64) -> anyhow::Result<Snapshot> {
        let waiting = tokio::time::timeout(ENDED_TIMEOUT, async {
            loop {
                let outbox = Snapshot::take_ended(&self.pool).await?;
                if outbox.ended_below().is_some_and(|below| below >= txid) {
                    return Ok(outbox);
                }
                drop(outbox);
                tokio::time::sleep(SLOT_PAUSE).await;
            }
        });
        waiting.await.unwrap_or_else(|_| {
            bail!(
                "a transaction that began before stays open for more than {} s (pg_stat_activity, pg_prepared_xacts): \
                 end it, and run it again",
                ENDED_TIMEOUT.as_secs()
            )
        })
    }

    /// Compares, sends what is missing, and settles the position there.
    async fn send_missing(
        &self,
        outbox: &mut Snapshot,
        producer: TransactionalProducer,
        settle_at: Position,
        options: Options,
        mark: &str,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Report> {
        let stored = self.read_position().await?.context("the position is gone; run it again")?;
        let plan = self.compare(outbox, options.older).await?;
        let config = &self.settings.config;
        let (buffer, items) = Buffer::new(config.buffer_rows_max, config.buffer_bytes_max);
        let stop = shutdown.child_token();
        let mut drain = self.drain(producer, items, stored.position, &stop);
        drain.unsettled = Some(mark.to_owned());
        drain.settle_at = Some(settle_at);
        let draining = tokio::task::spawn_blocking(move || drain.run());
        let fed = tokio::select! {
            fed = feed(outbox, &plan, &stored.position, &buffer) => fed,
            () = shutdown.cancelled() => Err(anyhow!("stopped")),
        };
        // There will be no more: the drain sends the last ones, then settles.
        drop(buffer);
        if fed.is_err() {
            stop.cancel();
        }
        match draining.await {
            Ok(Ok(())) => Ok(Report { settled_at: Some(Place::of(&settle_at).to_string()), ..fed? }),
            // The reason for which feeding ended, too.
            ended => Err(SessionError::from_drain(ended).into()),
        }
    }

    /// Marks the position, so that no relay goes on from it until the end, and fences the one that delivers. A relay
    /// that looks whether it may go on fences us in turn, until it finds the mark.
    async fn bar(&self, mark: &str, shutdown: &CancellationToken) -> Result<(), SessionError> {
        let mut attempts = 1;
        loop {
            match self.mark(mark, shutdown).await {
                Err(SessionError::Superseded | SessionError::Kafka(_)) if attempts < BAR_ATTEMPTS_MAX => attempts += 1,
                barred => return barred,
            }
            tokio::time::sleep(BAR_PAUSE).await;
        }
    }

    async fn mark(&self, mark: &str, shutdown: &CancellationToken) -> Result<(), SessionError> {
        let producer = self.take_over(shutdown).await?;
        let stored = match self.read_position().await? {
            Some(stored) => stored,
            None => Stored { position: self.first().await?, publication: None, unsettled: None },
        };
        self.store_position(producer, &Stored { unsettled: Some(mark.to_owned()), ..stored }).await?;
        Ok(())
    }

    /// A position before any delivery.
    async fn first(&self) -> Result<Position, SessionError> {
        match self.look_up_way().await? {
            Way::Logical => Ok(fit::first(&stream::look(&self.database, &self.slot, &self.settings.config).await?)),
            Way::Polling => self.first_row(&mut Reader::connect(&self.pool, 0).await?).await,
        }
    }

    /// Takes the slot. A relay that finds it takes it for a moment, and refuses.
    async fn take_slot(&self) -> anyhow::Result<Stream> {
        loop {
            match Stream::take(&self.database, &self.slot, &self.settings.config, || ()).await {
                Err(StreamError::InUse) => tokio::time::sleep(SLOT_PAUSE).await,
                taken => return Ok(taken?),
            }
        }
    }
}

/// Hands the missing rows over, in order.
async fn feed(outbox: &mut Snapshot, plan: &Plan, position: &Position, buffer: &Buffer) -> anyhow::Result<Report> {
    let mut report = Report::of(plan);
    let mut missing = Missing::new(plan);
    while let Some(rows) = missing.next(outbox).await? {
        for unrelayed::Row { origin, record, .. } in rows {
            let is_there = plan.ahead.knows(&record);
            report.note(&record, is_there);
            // The position stays where it is until the end.
            let place = Place::of(position);
            let room = buffer.room(&record).await;
            let committed_at_ms = origin.began_at_ms();
            let mut row = Row::new(record, origin, place, committed_at_ms, room);
            row.is_there = is_there;
            if !buffer.send(Item::Row(row)).await {
                bail!("delivering ended");
            }
        }
    }
    Ok(report)
}
