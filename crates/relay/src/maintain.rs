//! The work beside the deliveries: makes partitions ahead, drops delivered ones, and measures age, lag and reach.

use std::time::Duration;

use events::position::{LastRow, Position};
use events::time::HOUR_MS;
use service_kit::{CancellationToken, error_chain};
use store::polling::{self, Horizon};
use store::reader::{self, Way};
use store::relayed::{self, Delivered, History, Watermark};
use store::slot::SlotError;
use store::{outbox, slot};
use tokio::time::Instant;

use crate::{Relay, telemetry};

/// Kafka must answer within this time.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);

/// The dependency by which readiness says that rows wait for an open transaction.
const HORIZON: &str = "horizon";
/// So many looks in a row that find rows behind the same open transaction are worth saying.
const LOOKS_HELD: u32 = 3;
/// So many looks in a row have to find a slot that nobody needs. `migrate` makes a slot before it says that it is
/// needed.
const LOOKS_LEFT_OVER: u32 = 3;

/// Remembered from one look to the next.
#[derive(Debug, Default)]
pub struct Maintenance {
    /// Taken, and not yet reached by the deliveries.
    ahead: Option<Watermark>,
    /// Everything below it is delivered.
    reached: Option<Watermark>,
    partitions_at: Option<Instant>,
    held: Option<Held>,
    /// Readiness says so.
    held_said: bool,
    /// Looks in a row that found a slot though this outbox is polled.
    slot_left_over: u32,
    last_failure: Option<String>,
}

/// An open transaction behind which nothing is delivered by a relay that polls.
#[derive(Debug, Clone, Copy)]
struct Held {
    txid: u64,
    since: Instant,
    looks: u32,
}

impl Relay {
    /// Looks every few seconds until shutdown.
    pub(crate) async fn maintain(&self, shutdown: &CancellationToken) {
        let mut maintenance = Maintenance::default();
        let interval = Duration::from_secs(self.settings.config.monitor_interval_s.max(1));
        loop {
            let looking = async {
                self.look_at_kafka().await;
                self.look_at_way().await;
                let outcome = self.maintain_once(&mut maintenance).await;
                let failure = outcome.err().map(|error| error_chain(&error));
                if failure != maintenance.last_failure
                    && let Some(failure) = &failure
                {
                    tracing::warn!(failure, "the outbox cannot be maintained; retrying");
                }
                maintenance.last_failure = failure;
                tokio::time::sleep(interval).await;
            };
            if shutdown.run_until_cancelled(looking).await.is_none() {
                return;
            }
        }
    }

    async fn look_at_kafka(&self) {
        match self.admin.reachable(REACH_TIMEOUT).await {
            Ok(()) => self.readiness.ready("kafka"),
            Err(error) => self.readiness.missing("kafka", error_chain(&error)),
        }
    }

    /// Ends the session if another way of reading was chosen.
    async fn look_at_way(&self) {
        let present = *self.delivers_by.lock();
        match self.look_up_way().await {
            Ok(chosen) if present.is_some_and(|present| present != chosen) => self.changed.notify_one(),
            Ok(Way::Logical) => self.look_at_publication().await,
            _ => {}
        }
    }

    /// Ends the session if the publication is another one, or gone: from Postgres 18 on the stream then leaves rows out
    /// without an error.
    async fn look_at_publication(&self) {
        let streamed = *self.publication.lock();
        let present = match slot::check_server(&self.pool).await {
            Ok(publication) => Some(publication),
            Err(SlotError::PublicationMissing | SlotError::PublicationWrong) => None,
            Err(_) => return,
        };
        if streamed.is_some() && streamed != present {
            self.changed.notify_one();
        }
    }

    /// One look. Makes and drops partitions when it is time to.
    pub async fn maintain_once(&self, maintenance: &mut Maintenance) -> Result<(), store::Error> {
        let config = &self.settings.config;
        let every = Duration::from_secs(config.partitions_interval_s);
        let due = maintenance.partitions_at.is_none_or(|at| at.elapsed() >= every);
        // Whatever keeps partitions from being made, what is delivered goes.
        let made = match due {
            true => outbox::ensure_partitions(&self.pool, config.partitions_ahead_h).await,
            false => Ok(0),
        };
        let delivered = *self.delivered.borrow();
        if let Some(position) = delivered {
            let delivered = place(&position);
            // What was taken before a failover says nothing about the rows of the server after it.
            maintenance.ahead = maintenance.ahead.filter(|ahead| ahead.history == delivered.history);
            maintenance.reached = maintenance.reached.filter(|reached| reached.history == delivered.history);
            if let Some(row) = position.last_row {
                // Rows come in this order, so all transactions before this one's are delivered whole. The row itself
                // stays: by it a server is known that has lost it.
                let history = delivered.history;
                maintenance.reached = Some(Watermark { history, txid_below: row.txid, lsn: delivered.lsn });
                reader::confirm(&self.pool, row, history).await?;
            } else if maintenance.ahead.is_none_or(|ahead| ahead.is_reached(delivered)) {
                maintenance.reached = maintenance.ahead.or(maintenance.reached);
                maintenance.ahead = Some(relayed::watermark(&self.pool).await?);
            }
            if let Some(reached) = maintenance.reached.filter(|_| due) {
                self.drop_relayed(&reached, delivered).await?;
            }
            telemetry::position(&position);
        }
        // Nothing is known to be delivered right after a start, so the first drop waits for that.
        if due && made.is_ok() && (delivered.is_none() || maintenance.reached.is_some()) {
            maintenance.partitions_at = Some(Instant::now());
        }
        let way = self.look_up_way().await?;
        if way == Way::Polling {
            self.look_at_rows(maintenance).await?;
        } else {
            let below = maintenance.reached.map_or(0, |reached| reached.txid_below);
            telemetry::outbox_age(outbox::oldest_age_ms(&self.pool, below).await?.unwrap_or(0));
            telemetry::horizon_age(0.0);
        }
        self.look_at_slot(way, maintenance).await?;
        made.map(drop)
    }

    /// Measures how long rows wait for a relay that polls, and for whom.
    async fn look_at_rows(&self, maintenance: &mut Maintenance) -> Result<(), store::Error> {
        let delivered = self.delivered.borrow().and_then(|position| position.last_row).unwrap_or_default();
        let last = reader::confirmed(&self.pool).await?.max(delivered);
        telemetry::outbox_age(outbox::oldest_age_after_ms(&self.pool, last).await?.unwrap_or(0));
        let Horizon { oldest, next, process } = polling::horizon(&self.pool).await?;
        let held = maintenance.held.take().filter(|held| held.txid == oldest);
        let held = held.unwrap_or_else(|| Held { txid: oldest, since: Instant::now(), looks: 0 });
        let is_open = oldest < next;
        telemetry::horizon_age(if is_open { held.since.elapsed().as_secs_f64() } else { 0.0 });
        let first = LastRow { txid: oldest, ..LastRow::default() };
        let waits = is_open && outbox::oldest_age_after_ms(&self.pool, first.max(last)).await?.is_some();
        let looks = if waits { held.looks.saturating_add(1) } else { 0 };
        if looks >= LOOKS_HELD {
            let seconds = held.since.elapsed().as_secs();
            let end = match process {
                Some(process) => format!("end it: select pg_terminate_backend({process})"),
                None => "if it is prepared, roll it back: pg_prepared_xacts".to_owned(),
            };
            let cause = format!("rows wait for transaction {oldest}, open for {seconds} s or more; {end}");
            self.readiness.missing(HORIZON, cause);
        } else if maintenance.held_said {
            self.readiness.ready(HORIZON);
        }
        maintenance.held_said = looks >= LOOKS_HELD;
        maintenance.held = is_open.then_some(Held { looks, ..held });
        Ok(())
    }

    /// Measures the slot. One that is left over from before this relay polled would keep log for nobody.
    async fn look_at_slot(&self, way: Way, maintenance: &mut Maintenance) -> Result<(), store::Error> {
        let looks = std::mem::take(&mut maintenance.slot_left_over);
        let Ok(status) = slot::status(&self.pool, &self.slot).await else { return Ok(()) };
        telemetry::slot_lag(status.lag_bytes);
        telemetry::slot_wal_status(&status.wal_status);
        if way == Way::Polling && *self.delivers_by.lock() == Some(Way::Polling) {
            maintenance.slot_left_over = looks + 1;
        }
        if maintenance.slot_left_over >= LOOKS_LEFT_OVER {
            match slot::drop_unused(&self.pool, &self.slot).await {
                Ok(true) => tracing::info!(slot = self.slot, "dropped the slot: this outbox is polled"),
                Ok(false) => {}
                Err(SlotError::Store(error)) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(())
    }

    async fn drop_relayed(&self, reached: &Watermark, delivered: Delivered) -> Result<(), store::Error> {
        let keep_ms = i64::from(self.settings.config.keep_h) * HOUR_MS;
        let dropped = relayed::drop_relayed(&self.pool, reached, delivered, keep_ms).await?;
        telemetry::dropped(dropped.partitions.len());
        if dropped != relayed::Dropped::default() {
            let (partitions, busy) = (dropped.partitions.join(", "), dropped.busy);
            tracing::info!(partitions, busy, default_rows = dropped.default_rows, "dropped what was delivered");
        }
        Ok(())
    }
}

/// Up to where the log is delivered.
const fn place(position: &Position) -> Delivered {
    let history = History { system_identifier: position.system_identifier, timeline: position.timeline };
    Delivered { history, lsn: position.end_lsn.0 }
}
