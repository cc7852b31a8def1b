//! What is no longer needed goes, and the work that waits is counted.

use std::time::Duration;

use events::time::DAY_MS;
use service_kit::due::{Pace, at_intervals};
use service_kit::health::Readiness;
use store::{Pool, webhooks};
use tokio_util::sync::CancellationToken;

/// The pause between rounds.
const INTERVAL: Duration = Duration::from_secs(3_600);
/// The pause between attempts while Postgres is down.
const RETRY: Duration = Duration::from_secs(5);

/// Deletes old deliveries and requests until shutdown.
pub(crate) async fn run(
    (pool, keep_d): (Pool, u32),
    readiness: Readiness,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let pace = Pace { dependency: "postgres", readiness: &readiness, interval_max: INTERVAL, retry: RETRY };
    let round = || async {
        webhooks::retire(&pool, i64::from(keep_d) * DAY_MS).await?;
        store::sweep::deliveries(&pool).await?;
        webhooks::forget(&pool).await
    };
    at_intervals(pace, &shutdown, round).await;
    Ok(())
}

/// Counts until shutdown.
pub(crate) async fn count(
    (pool, every): (Pool, Duration),
    readiness: Readiness,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let pace = Pace { dependency: "postgres", readiness: &readiness, interval_max: every, retry: RETRY };
    let round = || async {
        let figures = webhooks::figures(&pool).await?;
        metrics::gauge!("meanwhile_webhook_deliveries_pending").set(figures.pending as f64);
        metrics::gauge!("meanwhile_webhook_due_age_seconds").set(figures.due_age_ms as f64 / 1_000.0);
        metrics::gauge!("meanwhile_webhook_endpoints_disabled").set(figures.disabled_endpoints as f64);
        Ok::<(), store::Error>(())
    };
    at_intervals(pace, &shutdown, round).await;
    Ok(())
}
