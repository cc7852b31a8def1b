//! When to commit: at once after a quiet moment, else after a short time in which more finishes, or when a batch is
//! full.
//!
//! A transaction costs some 4 ms of CPU however small it is (design.md section 10), so the more is going on the longer
//! the next one waits: up to [`BUSY_INTERVAL`] while that keeps most of the latency, and beyond it where so much comes
//! that whoever waits does so for the processors.

use std::time::{Duration, Instant};

/// The shortest time between two commits.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// The interval of a busy worker.
const BUSY_INTERVAL: Duration = Duration::from_millis(20);
/// The batch size at which it is reached.
const BUSY_RESULTS: f64 = 32.0;
/// Where more than so many results come in a millisecond the interval grows on, to its longest.
const FLOOD_RESULTS_PER_MS: f64 = 4.0;
/// How much of the average a new batch counts for.
const WEIGHT: f64 = 0.2;

/// The cadence of one session's commits.
#[derive(Debug)]
pub(crate) struct Cadence {
    interval_max: Duration,
    last_commit: Option<Instant>,
    batch_average: f64,
}

impl Cadence {
    pub(crate) fn new(interval_max: Duration) -> Self {
        Self { interval_max: interval_max.max(INTERVAL_MIN), last_commit: None, batch_average: 0.0 }
    }

    /// How long to wait before the next commit, with something ready now.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let due = self.last_commit.map_or(now, |last| last + self.interval());
        due.saturating_duration_since(now)
    }

    /// A batch of so many results has been committed.
    pub(crate) fn committed(&mut self, results: usize, now: Instant) {
        self.last_commit = Some(now);
        self.batch_average += (results as f64 - self.batch_average) * WEIGHT;
    }

    fn interval(&self) -> Duration {
        let busy = (self.batch_average / BUSY_RESULTS).min(1.0);
        let interval = INTERVAL_MIN + (BUSY_INTERVAL - INTERVAL_MIN).mul_f64(busy);
        let flood = Duration::from_secs_f64(self.batch_average / FLOOD_RESULTS_PER_MS / 1_000.0);
        interval.max(flood).min(self.interval_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(50);

    #[test]
    fn after_a_quiet_moment_a_commit_comes_at_once() {
        let start = Instant::now();
        let mut cadence = Cadence::new(MAX);
        assert_eq!(cadence.wait(start), Duration::ZERO);
        cadence.committed(1, start);
        assert!(cadence.wait(start) >= INTERVAL_MIN);
        assert_eq!(cadence.wait(start + MAX), Duration::ZERO);
    }

    #[test]
    fn what_is_usual_for_a_busy_worker_does_not_take_the_longest_interval() {
        let mut now = Instant::now();
        let mut cadence = Cadence::new(MAX);
        for _ in 0..500 {
            let interval = cadence.interval();
            now += interval;
            // Three results come in each millisecond.
            cadence.committed(3 * usize::try_from(interval.as_millis()).unwrap(), now);
        }
        assert_eq!(cadence.wait(now), BUSY_INTERVAL);
    }

    #[test]
    fn the_busier_it_is_the_longer_a_commit_waits_up_to_the_limit() {
        let mut now = Instant::now();
        let mut cadence = Cadence::new(MAX);
        let mut waits = Vec::new();
        for _ in 0..50 {
            now += MAX;
            cadence.committed(1_000, now);
            waits.push(cadence.wait(now));
        }
        assert!(waits.is_sorted() && waits[0] > INTERVAL_MIN);
        assert_eq!(waits.last(), Some(&MAX));
    }
}
