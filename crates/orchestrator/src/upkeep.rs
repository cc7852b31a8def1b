//! Maintenance of the projection: makes partitions for the days to come, drops the days that are no longer kept.

use std::time::Duration;

use events::time::DAY_MS;
use service_kit::due::{Pace, at_intervals};
use service_kit::health::Readiness;
use store::{Pool, jobs};
use tokio_util::sync::CancellationToken;

/// Between rounds.
const INTERVAL: Duration = Duration::from_secs(3_600);
/// While Postgres is down.
const RETRY: Duration = Duration::from_secs(5);
/// Days for which partitions exist in advance.
pub(crate) const DAYS_AHEAD: u32 = 3;

/// Runs until shutdown. Nothing on the way of a job waits for it.
pub(crate) async fn run(
    pool: Pool,
    keep_jobs_d: u32,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let pace = Pace { dependency: "postgres", readiness: &readiness, interval_max: INTERVAL, retry: RETRY };
    at_intervals(pace, &shutdown, || run_once(&pool, keep_jobs_d)).await;
    Ok(())
}

async fn run_once(pool: &Pool, keep_jobs_d: u32) -> Result<(), store::Error> {
    jobs::ensure_partitions(pool, DAYS_AHEAD).await?;
    if keep_jobs_d == 0 {
        return Ok(());
    }
    let retired = jobs::retire(pool, i64::from(keep_jobs_d) * DAY_MS).await?;
    if retired != store::Retired::default() {
        let (partitions, postponed) = (retired.partitions.join(", "), retired.postponed);
        let (moved_rows, default_rows) = (retired.moved_rows, retired.default_rows);
        tracing::info!(partitions, postponed, moved_rows, default_rows, "dropped what is no longer kept");
    }
    Ok(())
}
