//! Limits of downstreams: calls begun in a time, calls under way, and the share of retries among them.
//!
//! A limit is meant for all workers together. Each keeps its share of it: its partitions of all partitions of the
//! queues. So together they never exceed a rate, except for the moments of a rebalance, and they fall short of it where
//! a worker has partitions of other queues. Every worker makes one call at a time at least.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flow::definition::Limits;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::RetryConfig;
use crate::pace::Pace;
use crate::window::Window;

/// Downstreams that are looked at; a deployment has tens.
const DOWNSTREAMS_MAX: usize = 1_000;
/// A call for which there is room within this time waits for it here.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// The pause before the share of this worker is asked for again, where it is not known.
const SHARE_PAUSE: Duration = Duration::from_millis(20);
/// The rest of a call with a rate at a worker that has no share of it, in milliseconds: not known yet, or its
/// partitions are others' by now.
const NO_SHARE_REST_MS: u64 = 1_000;
/// The time of a call as long as none has ended, in seconds.
const CALL_S: f64 = 0.5;
/// Retries beyond their share come back at this rate, by worker.
const RETRIES_PER_S: f64 = 20.0;

/// All limits of this process.
#[derive(Debug)]
pub(crate) struct Downstreams {
    rooms: Mutex<HashMap<String, Room>>,
    retries: RetryConfig,
    share: Share,
    left: Notify,
    began: Instant,
}

/// The part of the partitions that are this worker's.
#[derive(Debug, Default)]
pub(crate) struct Share {
    mine: AtomicUsize,
    all: AtomicUsize,
    /// Counts of all partitions that were begun.
    counts: AtomicUsize,
}

impl Share {
    /// No partition is ours.
    pub(crate) fn begin(&self) {
        self.mine.store(0, Ordering::Relaxed);
    }

    pub(crate) fn got(&self, partitions: usize) {
        self.mine.fetch_add(partitions, Ordering::Relaxed);
    }

    pub(crate) fn gave(&self, partitions: usize) {
        let less = |mine: usize| Some(mine.saturating_sub(partitions));
        let _ = self.mine.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// The number of a count that begins now.
    pub(crate) fn begin_count(&self) -> usize {
        self.counts.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The end of a count. Only the one that was begun last says anything: Kafka may answer the others later.
    pub(crate) fn know_all(&self, count: usize, partitions: usize) {
        if self.counts.load(Ordering::Relaxed) == count {
            self.all.store(partitions, Ordering::Relaxed);
        }
    }

    fn part(&self) -> f64 {
        let (mine, all) = (self.mine.load(Ordering::Relaxed), self.all.load(Ordering::Relaxed));
        if all == 0 { 0.0 } else { (mine as f64 / all as f64).min(1.0) }
    }
}

/// One downstream.
#[derive(Debug)]
struct Room {
    pace: Pace,
    in_flight: u32,
    /// The usual time of a call, in seconds.
    call_s: f64,
    /// Calls, and retries among them.
    retries: Window,
}

/// The leave to make a call; the call is under way for as long as it lives.
#[derive(Debug)]
pub(crate) struct Permit {
    downstreams: Arc<Downstreams>,
    downstream: String,
    since: Instant,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let took_s = self.since.elapsed().as_secs_f64();
        if let Some(room) = self.downstreams.rooms.lock().get_mut(&self.downstream) {
            room.in_flight = room.in_flight.saturating_sub(1);
            room.call_s += (took_s - room.call_s) / 8.0;
        }
        self.downstreams.left.notify_waiters();
    }
}

/// What a call meets.
enum Met {
    Enters,
    /// There may be room after this time.
    Waits(Duration),
    /// There is none soon: it rests for so many milliseconds.
    Rests(u64),
}

impl Downstreams {
    pub(crate) fn new(retries: RetryConfig) -> Arc<Self> {
        let (rooms, share, left) = Default::default();
        Arc::new(Self { rooms, retries, share, left, began: Instant::now() })
    }

    pub(crate) const fn share(&self) -> &Share {
        &self.share
    }

    /// Waits shortly for room, or says for how many milliseconds the call is to rest.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        downstream: &str,
        limits: Limits,
        is_retry: bool,
    ) -> Result<Permit, u64> {
        let end = Instant::now() + WAIT_MAX;
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            match self.meet(downstream, limits, is_retry, end) {
                Met::Enters => {
                    let (downstreams, downstream) = (Arc::clone(self), downstream.to_owned());
                    return Ok(Permit { downstreams, downstream, since: Instant::now() });
                }
                Met::Waits(time) => {
                    tokio::select! {
                        () = tokio::time::sleep(time) => {}
                        () = left => {}
                    }
                }
                Met::Rests(ms) => return Err(ms),
            }
        }
    }

    fn meet(&self, downstream: &str, limits: Limits, is_retry: bool, end: Instant) -> Met {
        let (since, part) = (self.began.elapsed(), self.share.part());
        let (now_us, now_ms) = (since.as_secs_f64() * 1e6, i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        let mut rooms = self.rooms.lock();
        if !rooms.contains_key(downstream) {
            if rooms.len() >= DOWNSTREAMS_MAX {
                return Met::Enters;
            }
            let retries = Window::new(self.retries.window_s);
            let room = Room { pace: Pace::default(), in_flight: 0, call_s: CALL_S, retries };
            rooms.insert(downstream.to_owned(), room);
        }
        let Some(room) = rooms.get_mut(downstream) else { return Met::Enters };
        if is_retry && self.is_over(&room.retries, now_ms) {
            metrics::counter!("meanwhile_retries_put_off_total", "downstream" => downstream.to_owned()).increment(1);
            return Met::Rests(room.pace.rest_ms(now_us, RETRIES_PER_S));
        }
        let now = Instant::now();
        // A pace that is taken from no share would hold up the calls of a minute, long after the share is known.
        if limits.per_minute.is_some() && part <= 0.0 {
            return if now < end { Met::Waits(SHARE_PAUSE) } else { Met::Rests(NO_SHARE_REST_MS) };
        }
        let of_share = |limit: u32| (f64::from(limit) * part).floor().max(1.0);
        let in_flight = limits.in_flight.map(of_share);
        let per_s = limits.per_minute.map(|count| (f64::from(count) * part).max(1.0) / 60.0);
        if in_flight.is_some_and(|most| f64::from(room.in_flight) >= most) {
            let most = in_flight.unwrap_or(1.0);
            if now < end {
                return Met::Waits(end - now);
            }
            let per_s = per_s.unwrap_or(f64::MAX).min(most / room.call_s.max(0.001));
            return Met::Rests(room.pace.rest_ms(now_us, per_s));
        }
        if let Some(per_s) = per_s {
            let wait = Duration::from_secs_f64(room.pace.wait_us(now_us) / 1e6);
            if !wait.is_zero() {
                let soon = now + wait <= end;
                return if soon { Met::Waits(wait) } else { Met::Rests(room.pace.rest_ms(now_us, per_s)) };
            }
            room.pace.take(now_us, per_s);
        }
        room.retries.note(now_ms, is_retry);
        room.in_flight += 1;
        Met::Enters
    }

    /// True if one more retry would be more than their share.
    fn is_over(&self, window: &Window, now_ms: i64) -> bool {
        let (calls, retries) = window.counts(now_ms);
        let share = u64::from(calls) * u64::from(self.retries.share_percent) / 100;
        u64::from(retries) >= share.max(u64::from(self.retries.calls_min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Limits = Limits { per_minute: None, in_flight: None };

    fn downstreams(mine: usize, all: usize) -> Arc<Downstreams> {
        let downstreams = Downstreams::new(RetryConfig { window_s: 10, share_percent: 20, calls_min: 5 });
        downstreams.share.got(mine);
        downstreams.share.know_all(downstreams.share.begin_count(), all);
        downstreams
    }

    async fn enter(downstreams: &Arc<Downstreams>, limits: Limits, is_retry: bool) -> Result<Permit, u64> {
        downstreams.enter("payment", limits, is_retry).await
    }

    #[test]
    fn of_counts_that_end_out_of_order_the_one_begun_last_is_known() {
        let share = Share::default();
        share.got(2);
        let (first, last) = (share.begin_count(), share.begin_count());
        share.know_all(last, 8);
        share.know_all(first, 2);
        assert!((share.part() - 0.25).abs() < f64::EPSILON);
    }

    #[tokio::test]
    async fn a_worker_has_its_share_of_the_calls_under_way_and_one_at_least() {
        let limits = Limits { in_flight: Some(9), ..NONE };
        for (mine, all, most) in [(6, 6, 9), (2, 6, 3), (1, 60, 1), (0, 0, 1)] {
            let downstreams = downstreams(mine, all);
            let mut permits = Vec::new();
            while let Ok(permit) = enter(&downstreams, limits, false).await {
                permits.push(permit);
                assert!(permits.len() <= most, "{mine} of {all}");
            }
            assert_eq!(permits.len(), most, "{mine} of {all}");
            assert!(downstreams.enter("shipping", limits, false).await.is_ok(), "another one has room of its own");
            permits.pop();
            assert!(enter(&downstreams, limits, false).await.is_ok());
        }
    }

    #[tokio::test]
    async fn a_call_beyond_the_rate_rests_and_the_next_ones_ever_longer() {
        let downstreams = downstreams(3, 6);
        let limits = Limits { per_minute: Some(120), ..NONE };
        assert!(enter(&downstreams, limits, false).await.is_ok());
        let mut rests = Vec::new();
        for _ in 0..4 {
            rests.push(enter(&downstreams, limits, false).await.expect_err("one call in a second"));
        }
        assert!(rests.is_sorted() && rests[3] >= 3_000, "{rests:?}");
    }

    #[tokio::test]
    async fn a_worker_that_does_not_know_its_share_yet_calls_nothing_and_holds_nothing_up_later() {
        let limits = Limits { per_minute: Some(60_000), ..NONE };
        for (mine, all) in [(3, 0), (0, 6)] {
            let downstreams = downstreams(mine, all);
            for _ in 0..3 {
                assert_eq!(enter(&downstreams, limits, false).await.expect_err("no share"), NO_SHARE_REST_MS);
            }
            downstreams.share.got(3);
            downstreams.share.know_all(downstreams.share.begin_count(), 6);
            for _ in 0..20 {
                assert!(enter(&downstreams, limits, false).await.is_ok(), "{mine} of {all} at first");
            }
        }
    }

    #[tokio::test]
    async fn retries_beyond_their_share_are_put_off_and_first_calls_never() {
        let downstreams = downstreams(1, 1);
        for _ in 0..5 {
            assert!(enter(&downstreams, NONE, true).await.is_ok(), "so many are always let pass");
        }
        assert!(enter(&downstreams, NONE, true).await.is_err());
        for _ in 0..95 {
            assert!(enter(&downstreams, NONE, false).await.is_ok());
        }
        let mut passed = 0;
        while enter(&downstreams, NONE, true).await.is_ok() {
            passed += 1;
        }
        assert!((15..=20).contains(&passed), "20 % of some hundred calls, without the five: {passed}");
    }
}
