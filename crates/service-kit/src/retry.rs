//! Retrying: a dependency that is unreachable now may be back in a moment.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::health::Readiness;
use crate::identity::Ids;

/// The delay after the first failure when a dependency is unreachable.
const FIRST: Duration = Duration::from_millis(100);
/// The longest delay between two attempts: recovery is noticed within this time.
const CAP: Duration = Duration::from_secs(5);

/// Delays that double from a first one up to a cap, each drawn between half and all of it.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u32,
}

impl Default for Backoff {
    /// Delays from 100 ms to 5 s, for a dependency that is unreachable.
    fn default() -> Self {
        Self::new(FIRST, CAP)
    }
}

impl Backoff {
    /// Delays that double from `first` to `cap`.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, failures: 0 }
    }

    /// The delay before the next try; chance comes from `ids`.
    pub fn next_delay(&mut self, ids: &Ids) -> Duration {
        let full = self.first.saturating_mul(1 << self.failures.min(20)).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        let half_us = u64::try_from(full.as_micros() / 2).unwrap_or(u64::MAX);
        Duration::from_micros(half_us + ids.random_u64() % half_us.max(1))
    }

    /// Starts again with the first delay, after a success.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Sleeps for the next delay, unless shutdown comes first: then false.
    pub async fn sleep(&mut self, ids: &Ids, shutdown: &CancellationToken) -> bool {
        let delay = self.next_delay(ids);
        shutdown.run_until_cancelled(tokio::time::sleep(delay)).await.is_some()
    }
}

/// Calls `attempt` until it succeeds, reporting each outcome as the dependency `name` (which logs once per change).
/// `None`: shutdown came first.
pub async fn until_ok<T, E, F>(
    name: &str,
    readiness: &Readiness,
    ids: &Ids,
    shutdown: &CancellationToken,
    mut attempt: impl FnMut() -> F,
) -> Option<T>
where
    E: Into<anyhow::Error>,
    F: Future<Output = Result<T, E>>,
{
    let mut backoff = Backoff::default();
    loop {
        match shutdown.run_until_cancelled(attempt()).await? {
            Ok(value) => {
                readiness.ready(name);
                return Some(value);
            }
            Err(error) => readiness.missing(name, format!("{:#}", error.into())),
        }
        if !backoff.sleep(ids, shutdown).await {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Clock;

    #[test]
    fn delays_double_up_to_the_cap_and_start_again_after_a_success() {
        let ids = Ids::seeded(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for full_ms in [100, 200, 400, 800, 1_000, 1_000] {
            let delay = backoff.next_delay(&ids);
            let full = Duration::from_millis(full_ms);
            assert!(delay >= full / 2 && delay <= full, "{delay:?} for {full:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay(&ids) <= Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dependency_is_tried_until_it_answers() {
        let readiness = Readiness::new(Clock::manual(0), "relay");
        let mut tries = 0;
        let value = until_ok("kafka", &readiness, &Ids::seeded(1), &CancellationToken::new(), || {
            tries += 1;
            let outcome = if tries < 4 { Err(anyhow::anyhow!("refused")) } else { Ok(tries) };
            async move { outcome }
        })
        .await;
        assert_eq!(value, Some(4));
        assert!(readiness.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_ends_the_trying() {
        let readiness = Readiness::new(Clock::manual(0), "relay");
        readiness.expect(&["kafka"]);
        let shutdown = CancellationToken::new();
        let value: Option<()> = until_ok("kafka", &readiness, &Ids::seeded(1), &shutdown, || {
            shutdown.cancel();
            async { Err(anyhow::anyhow!("refused")) }
        })
        .await;
        assert_eq!(value, None);
        assert!(!readiness.is_ready());
    }
}
