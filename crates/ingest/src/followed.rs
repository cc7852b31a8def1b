//! What this instance knows of a table, kept up to date beside the requests: read from Postgres at the start, at every
//! notification, and now and then, which is the net below them.

use std::time::Duration;

use store::Listener;
use tokio_util::sync::CancellationToken;

/// The pause after an error.
const RETRY: Duration = Duration::from_millis(250);
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads again and again until shutdown. `listen` takes one connection for good. `look_every`: the pause between two
/// looks without a notification.
pub(crate) async fn keep<L, R>(
    what: &str,
    listen: impl Fn() -> L,
    read: impl Fn() -> R,
    look_every: Duration,
    shutdown: &CancellationToken,
) where
    L: Future<Output = Result<Listener, store::Error>>,
    R: Future<Output = Result<(), store::Error>>,
{
    let keeping = async {
        loop {
            if let Err(error) = follow(&listen, &read, look_every).await {
                tracing::debug!(%error, "{what} cannot be followed");
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    let _: Option<std::convert::Infallible> = shutdown.run_until_cancelled(keeping).await;
}

/// Follows changes until the connection is lost.
async fn follow<L, R>(listen: &impl Fn() -> L, read: &impl Fn() -> R, look_every: Duration) -> Result<(), store::Error>
where
    L: Future<Output = Result<Listener, store::Error>>,
    R: Future<Output = Result<(), store::Error>>,
{
    let mut listener = listen().await?;
    loop {
        // Too slow an answer is no change; the next look is near.
        if let Ok(outcome) = tokio::time::timeout(READ_TIMEOUT, read()).await {
            outcome?;
        }
        if !listener.heard_within(look_every).await? {
            return Ok(());
        }
    }
}
