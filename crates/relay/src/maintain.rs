//! The work beside the deliveries: makes partitions ahead, drops delivered ones, and measures age, lag and reach.

use std::time::Duration;

use events::position::Position;
use events::time::HOUR_MS;
use service_kit::{CancellationToken, error_chain};
use store::relayed::{self, Delivered, History, Watermark};
use store::slot::SlotError;
use store::{outbox, slot};
use tokio::time::Instant;

use crate::{Relay, telemetry};

/// Kafka must answer within this time.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);

/// Remembered from one look to the next.
#[derive(Debug, Default)]
pub struct Maintenance {
    /// Taken, and not yet reached by the deliveries.
    ahead: Option<Watermark>,
    /// Everything below it is delivered.
    reached: Option<Watermark>,
    partitions_at: Option<Instant>,
    last_failure: Option<String>,
}

impl Relay {
    /// Looks every few seconds until shutdown.
    pub(crate) async fn maintain(&self, shutdown: &CancellationToken) {
        let mut maintenance = Maintenance::default();
        let interval = Duration::from_secs(self.settings.config.monitor_interval_s.max(1));
        loop {
            let looking = async {
                self.look_at_kafka().await;
                self.look_at_publication().await;
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
            self.republished.notify_one();
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
            if maintenance.ahead.is_none_or(|ahead| ahead.is_reached(delivered)) {
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
        let below = maintenance.reached.map_or(0, |reached| reached.txid_below);
        telemetry::outbox_age(outbox::oldest_age_ms(&self.pool, below).await?.unwrap_or(0));
        if let Ok(status) = slot::status(&self.pool, &self.slot).await {
            telemetry::slot_lag(status.lag_bytes);
            telemetry::slot_wal_status(&status.wal_status);
        }
        made.map(drop)
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
