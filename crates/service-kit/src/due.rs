//! Loops over work that is due now and then. Work that fails is tried again, and readiness says what is missing.

use std::future::Future;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::health::Readiness;

/// The pace of a loop, and its dependency.
#[derive(Debug)]
pub struct Pace<'a> {
    /// The dependency that fails when the work does.
    pub dependency: &'static str,
    /// The board that shows the failure.
    pub readiness: &'a Readiness,
    /// The longest pause between two calls.
    pub interval_max: Duration,
    /// The pause after a failure.
    pub retry: Duration,
}

/// Calls `work` until shutdown: at the time that it returns itself (none: no work is due), when it is woken, and after
/// the longest pause at the latest.
pub async fn when_due<F, E>(pace: Pace<'_>, wake: &Notify, shutdown: &CancellationToken, mut work: impl FnMut() -> F)
where
    F: Future<Output = Result<Option<Duration>, E>>,
    E: Into<anyhow::Error>,
{
    loop {
        // The wake-up is registered before the work, so that none between the work and the sleep is missed.
        let woken = wake.notified();
        let pause = match work().await {
            Ok(next_due) => {
                pace.readiness.ready(pace.dependency);
                next_due.map_or(pace.interval_max, |next_due| next_due.min(pace.interval_max))
            }
            Err(error) => {
                pace.readiness.missing(pace.dependency, format!("{:#}", error.into()));
                pace.retry
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = woken => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Calls `work` at a steady pace until shutdown.
pub async fn at_intervals<F, E>(pace: Pace<'_>, shutdown: &CancellationToken, mut work: impl FnMut() -> F)
where
    F: Future<Output = Result<(), E>>,
    E: Into<anyhow::Error>,
{
    let never = Notify::new();
    let work = || {
        let done = work();
        async { done.await.map(|()| None) }
    };
    when_due(pace, &never, shutdown, work).await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::identity::Clock;

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn work_is_done_when_it_is_due_when_it_is_woken_and_again_after_a_failure() {
        let (readiness, wake, shutdown) =
            (Readiness::new(Clock::manual(0), "r"), Notify::new(), CancellationToken::new());
        let (calls, started) = (Cell::new(0), tokio::time::Instant::now());
        let work = || {
            calls.set(calls.get() + 1);
            let call = calls.get();
            if call == 3 {
                wake.notify_one();
            }
            if call == 4 {
                shutdown.cancel();
            }
            async move {
                match call {
                    1 => Err(anyhow::anyhow!("not now")),
                    2 => Ok(Some(Duration::from_secs(7))),
                    _ => Ok(None),
                }
            }
        };
        let retry = Duration::from_secs(1);
        let pace = Pace { dependency: "postgres", readiness: &readiness, interval_max: LONG, retry };
        when_due(pace, &wake, &shutdown, work).await;
        assert_eq!((calls.get(), started.elapsed()), (4, Duration::from_secs(8)), "1 s, then 7 s, then woken at once");
        assert!(readiness.is_ready());
    }
}
