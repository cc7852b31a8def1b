//! Leaving in steps, so that no request is refused: whoever balances requests between instances is told first, and
//! callers that are held for the outcome of a job get it.

use std::time::Duration;

use service_kit::health::Readiness;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// The dependency under which readiness tells that this process leaves.
const NAME: &str = "staying";

/// The steps in which a process leaves. The end of all cancels them both, also where something has failed.
#[derive(Debug, Clone)]
pub(crate) struct Leaving {
    /// Cancelled first: nothing new is taken, streams end, and nobody waits who can be answered with less.
    pub(crate) begun: CancellationToken,
    /// Cancelled next: nobody is held any longer that is owed an outcome.
    pub(crate) holds_end: CancellationToken,
}

impl Leaving {
    /// Nobody leaves yet.
    pub(crate) fn before(shutdown: &CancellationToken) -> Self {
        Self { begun: shutdown.child_token(), holds_end: shutdown.child_token() }
    }

    /// Takes the steps once somebody has `asked` for it; `/readyz` says so at once. Returns at `shutdown`: it comes
    /// once no request is left, or where something has failed and there is nothing to wait for.
    pub(crate) async fn once_asked(
        &self,
        asked: &CancellationToken,
        config: &Config,
        readiness: &Readiness,
        shutdown: &CancellationToken,
    ) {
        let in_steps = async {
            asked.cancelled().await;
            if config.leave_after_ms > 0 {
                readiness.missing(NAME, "this process was asked to end: send requests to another one");
                tokio::time::sleep(Duration::from_millis(config.leave_after_ms)).await;
            }
            self.begun.cancel();
            tokio::time::sleep(config.drain_timeout()).await;
            self.holds_end.cancel();
            shutdown.cancelled().await;
        };
        shutdown.run_until_cancelled(in_steps).await;
    }
}
