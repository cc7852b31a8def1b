//! Calls at a rate: the time of the next one, and the rest of those for which there is no room soon. Pure; times are in
//! microseconds of one clock that does not go back.

/// Calls that come after a pause may come this much at once, in microseconds of the rate.
const BURST_US: f64 = 100_000.0;
/// The shortest and the longest rest, in milliseconds.
const REST_MS_MIN: f64 = 500.0;
const REST_MS_MAX: f64 = 300_000.0;

/// The calls of one downstream.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// When the next call may begin.
    next_us: f64,
    /// When the next one of those that rest should come back.
    promised_us: f64,
}

impl Pace {
    /// The time until a call may begin, in microseconds.
    pub(crate) fn wait_us(&self, now_us: f64) -> f64 {
        (self.next_us - now_us).max(0.0)
    }

    /// A call begins, now or at its time. The time in which none came, although turns were promised, is given back to
    /// those that come to rest from now on.
    pub(crate) fn take(&mut self, now_us: f64, per_s: f64) {
        let unused_us = (now_us - BURST_US - self.next_us).max(0.0);
        self.promised_us -= unused_us;
        self.next_us = self.next_us.max(now_us - BURST_US) + 1e6 / per_s;
    }

    /// The rest of a call that is not to wait here, in milliseconds: one comes back after the other, at the rate.
    pub(crate) fn rest_ms(&mut self, now_us: f64, per_s: f64) -> u64 {
        self.promised_us = self.promised_us.max(now_us) + 1e6 / per_s;
        let rest_ms = (self.promised_us - now_us) / 1e3;
        if rest_ms > REST_MS_MAX {
            self.promised_us = now_us + REST_MS_MAX * 1e3;
        }
        rest_ms.clamp(REST_MS_MIN, REST_MS_MAX) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_keep_the_rate_however_many_want_to_begin() {
        let (mut pace, mut now_us, mut calls) = (Pace::default(), 1e9, 0);
        // Ten seconds of callers that ask every millisecond.
        for _ in 0..10_000 {
            if pace.wait_us(now_us) == 0.0 {
                pace.take(now_us, 50.0);
                calls += 1;
            }
            now_us += 1e3;
        }
        assert!((495..=506).contains(&calls), "{calls}");
    }

    #[test]
    fn those_that_rest_come_back_one_after_the_other_and_not_all_at_once() {
        let mut pace = Pace::default();
        let rests: Vec<u64> = (0..100).map(|_| pace.rest_ms(1e9, 10.0)).collect();
        assert_eq!((rests[0], rests[50], rests[99]), (500, 5_100, 10_000));
        assert_eq!(pace.rest_ms(2e9, 10.0), 500, "after a pause the line is empty");
        let longest = (0..10_000).map(|_| pace.rest_ms(3e9, 10.0)).max();
        assert_eq!(longest, Some(300_000));
    }

    #[test]
    fn turns_whose_calls_never_come_are_given_back() {
        let mut pace = Pace::default();
        pace.take(1e9, 10.0);
        // A hundred rest, and are cancelled.
        let last = (0..100).map(|_| pace.rest_ms(1e9, 10.0)).max();
        assert_eq!(last, Some(10_000));
        let later = 1e9 + 5e6;
        assert_eq!(pace.wait_us(later), 0.0, "nobody is here");
        pace.take(later, 10.0);
        assert_eq!(pace.rest_ms(later, 10.0), 500, "it is the next one");
        // Those that come in their turns give nothing back.
        let mut pace = Pace::default();
        pace.take(1e9, 10.0);
        let rests: Vec<u64> = (0..100).map(|_| pace.rest_ms(1e9, 10.0)).collect();
        for rest_ms in &rests[5..50] {
            pace.take(1e9 + *rest_ms as f64 * 1e3, 10.0);
        }
        assert!(pace.rest_ms(1e9 + 5e6, 10.0) > 4_500, "fifty are before it");
    }
}
