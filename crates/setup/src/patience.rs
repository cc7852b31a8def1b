//! Waiting for servers that are still starting.

use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

/// The time that Postgres, Kafka and the registry have to start.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause between attempts.
const RETRY: Duration = Duration::from_secs(1);

/// Repeats an attempt until it succeeds or the patience is over. `what` is named in the log and in the error.
pub(crate) async fn patiently<T, E, F>(what: &str, attempt: impl FnMut() -> F) -> anyhow::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
    F: Future<Output = Result<T, E>>,
{
    repeat(what, |_| true, attempt).await
}

/// The same for a request that Kafka may refuse for good: only its absence is waited out.
pub(crate) async fn while_kafka_is_away<T, F>(attempt: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, bus::Error>>,
{
    repeat("Kafka", bus::Error::is_transient, attempt).await
}

/// The same for a request that Kafka answers in the end: a refused login is not waited out.
pub(crate) async fn until_kafka_answers<T, F>(attempt: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, bus::Error>>,
{
    repeat("Kafka", |error: &bus::Error| !error.is_denied(), attempt).await
}

async fn repeat<T, E, F>(what: &str, may_pass: impl Fn(&E) -> bool, mut attempt: impl FnMut() -> F) -> anyhow::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if !may_pass(&error) => return Err(error.into()),
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn kafkas_absence_is_waited_out_and_its_refusal_is_told_at_once() {
        let attempts = Cell::new(0);
        let third_time = async || {
            attempts.set(attempts.get() + 1);
            match attempts.get() {
                ..3 => Err(bus::Error::Unavailable("no answer".into())),
                _ => Ok("committed"),
            }
        };
        assert_eq!(while_kafka_is_away(third_time).await.unwrap(), "committed");
        assert_eq!(attempts.take(), 3);
        let never = async || {
            attempts.set(attempts.get() + 1);
            Err::<(), _>(bus::Error::Refused("no right".into()))
        };
        assert_eq!(while_kafka_is_away(never).await.unwrap_err().to_string(), "Kafka refused");
        assert_eq!(attempts.get(), 1);
    }
}
