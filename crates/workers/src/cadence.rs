//! The time of the next commit: at once after a quiet moment; else after a short time in which more slips finish, or
//! when a batch is full.
//!
//! A transaction costs some 4 ms of CPU however small it is (measured on two cores), so a busier worker waits longer
//! between two commits.

use std::time::{Duration, Instant};

/// The shortest time between two commits.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// The batch size at which the interval reaches its longest.
const BUSY_RESULTS: f64 = 32.0;
/// The weight of a new batch in the average.
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

    /// The time to wait before the next commit, if a result is ready now.
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
        INTERVAL_MIN + (self.interval_max - INTERVAL_MIN).mul_f64(busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(20);

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
