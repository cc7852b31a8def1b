//! Maintenance of the acceptances: makes partitions for the days to come, drops the days that are no longer kept, and
//! deletes idempotency keys that have expired, and what was done about dead letters that are forgotten.

use std::sync::Arc;
use std::time::Duration;

use events::time::DAY_MS;
use service_kit::due::{Pace, at_intervals};
use tokio_util::sync::CancellationToken;

use crate::state::Api;

/// The pause between rounds.
const INTERVAL: Duration = Duration::from_secs(3_600);
/// The pause between attempts while Postgres is down.
const RETRY: Duration = Duration::from_secs(5);
/// Days for which partitions exist in advance.
const DAYS_AHEAD: u32 = 3;
/// Rows deleted by one statement.
const PURGE_ROWS_MAX: u32 = 10_000;

/// Runs until shutdown. No job waits for this work.
pub(crate) async fn run(api: Arc<Api>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let pace = Pace { dependency: "postgres", readiness: &api.readiness, interval_max: INTERVAL, retry: RETRY };
    at_intervals(pace, &shutdown, || run_once(&api)).await;
    Ok(())
}

async fn run_once(api: &Api) -> Result<(), store::Error> {
    store::acceptances::ensure_partitions(&api.pool, DAYS_AHEAD).await?;
    let keep_jobs_d = api.config.keep_jobs_d;
    if keep_jobs_d > 0 {
        let retired = store::acceptances::retire(&api.pool, i64::from(keep_jobs_d) * DAY_MS).await?;
        if retired != store::Retired::default() {
            let (partitions, postponed) = (retired.partitions.join(", "), retired.postponed);
            let (moved_rows, default_rows) = (retired.moved_rows, retired.default_rows);
            tracing::info!(partitions, postponed, moved_rows, default_rows, "dropped what is no longer kept");
        }
    }
    while store::letters::forget_settled(&api.pool, PURGE_ROWS_MAX).await? >= u64::from(PURGE_ROWS_MAX) {}
    while store::idempotency::purge(&api.pool, PURGE_ROWS_MAX).await? >= u64::from(PURGE_ROWS_MAX) {}
    Ok(())
}
