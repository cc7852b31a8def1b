//! Waiting for servers that are still starting.

use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

/// The time that Postgres, Kafka and the registry have to start.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause between attempts.
const RETRY: Duration = Duration::from_secs(1);

/// Repeats an attempt until it succeeds or the patience is over. `what` is named in the log and in the error.
pub(crate) async fn patiently<T, E, F>(what: &str, mut attempt: impl FnMut() -> F) -> anyhow::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("{what} did not answer within {} s", PATIENCE.as_secs()));
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    let error = anyhow::Error::new(error);
                    tracing::warn!(error = format!("{error:#}"), "{what} does not answer yet; retrying");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
