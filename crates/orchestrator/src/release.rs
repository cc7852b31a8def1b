//! Holds whose time has come leave Postgres through the outbox, in one statement. Never polls faster than it must: it
//! sleeps until the next hold is due, or until one comes in.

use std::sync::Arc;
use std::time::Duration;

use service_kit::health::Readiness;
use service_kit::stop_at;
use store::Pool;
use store::holds::{Released, release_due};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// While Postgres is down.
const RETRY: Duration = Duration::from_secs(1);

/// What the loop works with.
pub(crate) struct Release {
    pub(crate) pool: Pool,
    pub(crate) hold_came: Arc<Notify>,
    pub(crate) batch_max: u32,
    pub(crate) check_every: Duration,
    pub(crate) readiness: Readiness,
}

/// Runs until shutdown. Any number of orchestrators may do this at once; each hold is released by exactly one.
pub(crate) async fn run(release: Release, shutdown: CancellationToken) -> anyhow::Result<()> {
    loop {
        // Interest is registered before looking, so that no hold slips between the look and the sleep.
        let hold_came = release.hold_came.notified();
        let pause = match release_due(&release.pool, release.batch_max).await {
            Ok(Released { holds, next_due_in_ms }) => {
                if holds > 0 {
                    stop_at("orchestrator.after-release");
                }
                release.readiness.ready("postgres");
                metrics::counter!("meanwhile_holds_released_total").increment(u64::from(holds));
                next_due_in_ms.map_or(release.check_every, Duration::from_millis).min(release.check_every)
            }
            Err(error) => {
                release.readiness.missing("postgres", &error);
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = hold_came => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}
