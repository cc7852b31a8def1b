//! The release loop: holds whose time has come leave Postgres through the outbox, in one statement. It sleeps until the
//! next hold is due, or until a new one comes in.

use std::sync::Arc;
use std::time::Duration;

use service_kit::due::{Pace, when_due};
use service_kit::health::Readiness;
use service_kit::stop_at;
use store::Pool;
use store::holds::Released;
use store::lanes::release_due;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The pause between attempts while Postgres is down.
const RETRY: Duration = Duration::from_secs(1);

/// The loop's tools.
pub(crate) struct Release {
    pub(crate) pool: Pool,
    pub(crate) hold_came: Arc<Notify>,
    pub(crate) batch_max: u32,
    pub(crate) check_every: Duration,
    pub(crate) readiness: Readiness,
}

/// Runs until shutdown. Any number of orchestrators may run this at once; each hold is released by exactly one.
pub(crate) async fn run(release: Release, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Release { pool, hold_came, batch_max, check_every, readiness } = release;
    let pace = Pace { dependency: "postgres", readiness: &readiness, interval_max: check_every, retry: RETRY };
    when_due(pace, &hold_came, &shutdown, || release_once(&pool, batch_max)).await;
    Ok(())
}

/// Releases the holds that are due. Returns the time until the next one is due.
async fn release_once(pool: &Pool, batch_max: u32) -> Result<Option<Duration>, store::Error> {
    let Released { holds, next_due_in_ms } = release_due(pool, batch_max).await?;
    if holds > 0 {
        stop_at("orchestrator.after-release");
    }
    metrics::counter!("meanwhile_holds_released_total").increment(u64::from(holds));
    Ok(next_due_in_ms.map(Duration::from_millis))
}
