//! The last calls of one downstream, by seconds. Pure.

/// The limits by which calls count as failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Threshold {
    /// The calls that a window needs to say anything.
    pub(crate) calls_min: u32,
    /// The share of failures from which on they are too many, in percent.
    pub(crate) failures_percent: u32,
}

/// The calls of a second.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    at_s: i64,
    calls: u32,
    failures: u32,
}

/// The calls of the last seconds.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    seconds: Vec<Second>,
}

impl Window {
    /// `length_s`: the seconds that it looks back, at least one.
    pub(crate) fn new(length_s: u32) -> Self {
        Self { seconds: vec![Second::default(); length_s.max(1) as usize] }
    }

    /// A call has ended. A clock that goes back begins anew.
    pub(crate) fn note(&mut self, now_ms: i64, failed: bool) {
        let at_s = now_ms.div_euclid(1_000);
        let length = i64::try_from(self.seconds.len()).unwrap_or(i64::MAX);
        let place = usize::try_from(at_s.rem_euclid(length)).unwrap_or_default();
        let second = &mut self.seconds[place];
        if second.at_s != at_s {
            *second = Second { at_s, ..Second::default() };
        }
        second.calls = second.calls.saturating_add(1);
        second.failures = second.failures.saturating_add(u32::from(failed));
    }

    /// The calls and failures of the last seconds.
    pub(crate) fn counts(&self, now_ms: i64) -> (u32, u32) {
        let now_s = now_ms.div_euclid(1_000);
        let length = i64::try_from(self.seconds.len()).unwrap_or(i64::MAX);
        let recent = self.seconds.iter().filter(|second| (now_s - length + 1..=now_s).contains(&second.at_s));
        recent.fold((0, 0), |(calls, failures), second| {
            (second.calls.saturating_add(calls), second.failures.saturating_add(failures))
        })
    }

    /// The calls and failures, if too many have failed.
    pub(crate) fn failing(&self, now_ms: i64, threshold: Threshold) -> Option<(u32, u32)> {
        let (calls, failures) = self.counts(now_ms);
        let share = u64::from(calls) * u64::from(threshold.failures_percent);
        let too_many = failures > 0 && u64::from(failures) * 100 >= share;
        (calls >= threshold.calls_min.max(1) && too_many).then_some((calls, failures))
    }

    /// Forgets all calls.
    pub(crate) fn clear(&mut self) {
        self.seconds.fill(Second::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLD: Threshold = Threshold { calls_min: 20, failures_percent: 50 };
    const START_MS: i64 = 1_700_000_000_000;

    fn window(calls: &[(i64, bool)]) -> Window {
        let mut window = Window::new(10);
        calls.iter().for_each(|(at_ms, failed)| window.note(START_MS + at_ms, *failed));
        window
    }

    #[test]
    fn half_of_enough_calls_is_too_many_failures_and_less_is_not() {
        for (calls, failures, failing) in [(19, 19, false), (20, 9, false), (20, 10, true), (200, 99, false)] {
            let calls: Vec<_> = (0..calls).map(|call| (i64::from(call), call < failures)).collect();
            assert_eq!(window(&calls).failing(START_MS + 900, THRESHOLD).is_some(), failing, "{calls:?}");
        }
        let none = Threshold { calls_min: 0, failures_percent: 0 };
        assert_eq!(window(&[]).failing(START_MS, none), None);
        assert_eq!(window(&[(0, false)]).failing(START_MS, none), None, "no failure is never too many");
    }

    #[test]
    fn calls_count_for_the_length_of_the_window_and_not_longer() {
        let mut window = window(&vec![(500, true); 20]);
        assert_eq!(window.counts(START_MS + 9_999), (20, 20));
        assert_eq!(window.counts(START_MS + 10_000), (0, 0));
        window.note(START_MS + 10_400, false);
        assert_eq!(window.counts(START_MS + 10_400), (1, 0), "the place of a second that is over is used again");
        window.clear();
        assert_eq!(window.counts(START_MS + 10_400), (0, 0));
    }

    #[test]
    fn a_clock_that_goes_back_forgets_what_lies_ahead() {
        let mut window = window(&[(60_000, true), (60_000, true)]);
        window.note(START_MS, true);
        assert_eq!(window.counts(START_MS), (1, 1));
    }
}
