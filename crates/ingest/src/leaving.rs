//! Leaving in two steps, so that no request is refused: whoever balances requests between instances is told first.

use std::time::Duration;

use service_kit::health::Readiness;
use tokio_util::sync::CancellationToken;

/// The dependency under which readiness tells that this process leaves.
const NAME: &str = "staying";

/// Cancels `shutdown` this long after somebody `asked`; `/readyz` says so at once. Returns early where `shutdown` is
/// cancelled by others: something has failed, and there is nothing to wait for.
pub(crate) async fn once_asked(
    asked: &CancellationToken,
    delay: Duration,
    readiness: &Readiness,
    shutdown: &CancellationToken,
) {
    if shutdown.run_until_cancelled(asked.cancelled()).await.is_none() {
        return;
    }
    if !delay.is_zero() {
        readiness.missing(NAME, "this process was asked to end: send requests to another one");
        shutdown.run_until_cancelled(tokio::time::sleep(delay)).await;
    }
    shutdown.cancel();
}
