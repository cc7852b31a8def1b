//! Allowances that grow with time up to a bound (a token bucket). Each is kept as the time at which it is whole again.
//!
//! Names beyond a bounded number are forgotten, those first that nobody has used lately; forgotten ones begin anew.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// So many units in a time; as many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) quota: u64,
    pub(crate) window: Duration,
}

impl Rate {
    /// The time in which so many units grow.
    fn time_of(self, units: u64) -> Duration {
        let nanos = self.window.as_nanos() * u128::from(units) / u128::from(self.quota.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The units that grow in this time.
    fn units_of(self, time: Duration) -> u64 {
        let units = time.as_nanos() * u128::from(self.quota) / self.window.as_nanos().max(1);
        u64::try_from(units).unwrap_or(u64::MAX)
    }
}

/// The rest of an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) units: u64,
    /// The time until there is one more.
    pub(crate) next_after: Duration,
    /// The time until there are as many as there can be.
    pub(crate) whole_after: Duration,
}

/// When the allowance of each is whole again.
struct Halves<Name> {
    young: HashMap<Name, Instant>,
    old: HashMap<Name, Instant>,
}

/// Allowances by name; either half of the memory holds so many.
pub(crate) struct Allowances<Name> {
    names_max: usize,
    halves: Mutex<Halves<Name>>,
}

impl<Name: Copy + Eq + Hash> Allowances<Name> {
    pub(crate) fn new(names_max: usize) -> Self {
        Self { names_max, halves: Mutex::new(Halves { young: HashMap::new(), old: HashMap::new() }) }
    }

    /// Takes units from an allowance, or none, as [`Self::take_all`].
    pub(crate) fn take(&self, name: Name, units: u64, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.take_all(&[(name, rate)], units, now).map_err(|(_, time)| time)
    }

    /// Takes units from each of these allowances, or from none. Then it returns the place of the one that takes longest
    /// to hold them, and that time: with more than its quota, it never does.
    pub(crate) fn take_all(&self, of: &[(Name, Rate)], units: u64, now: Instant) -> Result<(), (usize, Duration)> {
        let mut halves = self.halves.lock();
        let before = |halves: &Halves<Name>, name| halves.whole_at(name).map_or(now, |whole_at| whole_at.max(now));
        let too_far = of.iter().enumerate().map(|(place, (name, rate))| {
            let whole_at = before(&halves, name) + rate.time_of(units);
            (place, (whole_at - now).saturating_sub(rate.window))
        });
        let longest = too_far.max_by_key(|(_, too_far)| *too_far).filter(|(_, too_far)| !too_far.is_zero());
        for (name, rate) in of {
            // One that is refused takes nothing, and yet is not forgotten.
            let taken = if longest.is_none() { rate.time_of(units) } else { Duration::ZERO };
            let whole_at = before(&halves, name) + taken;
            halves.keep(*name, whole_at, self.names_max);
        }
        longest.map_or(Ok(()), Err)
    }

    /// Takes units, whether the allowance holds them or not.
    pub(crate) fn charge(&self, name: Name, units: u64, rate: Rate, now: Instant) {
        let mut halves = self.halves.lock();
        let whole_at = halves.whole_at(&name).map_or(now, |whole_at| whole_at.max(now)) + rate.time_of(units);
        halves.keep(name, whole_at, self.names_max);
    }

    pub(crate) fn left(&self, name: Name, rate: Rate, now: Instant) -> Left {
        let whole_at = self.halves.lock().whole_at(&name);
        let whole_after = whole_at.map_or(Duration::ZERO, |whole_at| whole_at.saturating_duration_since(now));
        let units = rate.units_of(rate.window.saturating_sub(whole_after)).min(rate.quota);
        // The units that are there once there is one more.
        let then = rate.window.saturating_sub(rate.time_of(units.saturating_add(1)));
        Left { units, next_after: whole_after.saturating_sub(then), whole_after }
    }

    #[cfg(test)]
    pub(crate) fn names(&self) -> usize {
        let halves = self.halves.lock();
        halves.young.len() + halves.old.len()
    }
}

impl<Name: Eq + Hash> Halves<Name> {
    fn whole_at(&self, name: &Name) -> Option<Instant> {
        self.young.get(name).or_else(|| self.old.get(name)).copied()
    }

    fn keep(&mut self, name: Name, whole_at: Instant, names_max: usize) {
        if self.young.len() >= names_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, whole_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { quota: 3, window: Duration::from_millis(1_500) };

    #[test]
    fn the_first_are_free_and_then_as_many_as_time_gives() {
        let (allowances, now) = (Allowances::new(10), Instant::now());
        let take = |name: u8, after_ms| allowances.take(name, 1, RATE, now + Duration::from_millis(after_ms));
        assert_eq!([(); 3].map(|()| take(1, 0)), [Ok(()); 3]);
        assert_eq!(take(1, 0), Err(Duration::from_millis(500)));
        assert_eq!(take(1, 400), Err(Duration::from_millis(100)), "a refused one takes nothing");
        assert_eq!(take(2, 0), Ok(()), "each by itself");
        assert_eq!((take(1, 500), take(1, 500).is_err()), (Ok(()), true));
        assert_eq!([(); 3].map(|()| take(1, 60_000)), [Ok(()); 3], "never more than the quota");
        assert!(take(1, 60_000).is_err());
    }

    #[test]
    fn what_is_left_is_what_can_be_taken_and_grows_as_is_told() {
        let rate = Rate { quota: 7, window: Duration::from_secs(60) };
        let (allowances, now) = (Allowances::new(10), Instant::now());
        for taken in 0..7 {
            assert_eq!(allowances.left((), rate, now).units, 7 - taken);
            allowances.take((), 1, rate, now).unwrap();
        }
        let left = allowances.left((), rate, now);
        assert_eq!((left.units, left.whole_after.as_secs_f64().round()), (0, 60.0));
        assert!(allowances.take((), 1, rate, now).is_err());
        let later = now + left.next_after + Duration::from_nanos(10);
        assert_eq!(allowances.left((), rate, later).units, 1);
        allowances.take((), 1, rate, later).unwrap();
        assert_eq!(allowances.left((), rate, now + Duration::from_secs(200)).units, 7);
    }

    #[test]
    fn many_units_are_taken_at_once_or_none() {
        let rate = Rate { quota: 1_000, window: Duration::from_secs(10) };
        let (allowances, now) = (Allowances::new(10), Instant::now());
        allowances.take((), 800, rate, now).unwrap();
        assert_eq!(allowances.take((), 300, rate, now), Err(Duration::from_secs(1)));
        assert_eq!(allowances.left((), rate, now).units, 200);
        allowances.take((), 200, rate, now).unwrap();
        for seconds in [100, 1_000] {
            assert!(allowances.take((), 1_001, rate, now + Duration::from_secs(seconds)).is_err());
        }
    }

    #[test]
    fn several_are_taken_from_together_or_not_at_all() {
        let (allowances, now) = (Allowances::new(10), Instant::now());
        let wide = Rate { quota: 4, window: Duration::from_secs(8) };
        let take = |name| allowances.take_all(&[(name, RATE), ("all", wide)], 2, now);
        assert_eq!([take("a"), take("b")], [Ok(()); 2]);
        assert_eq!(take("c"), Err((1, Duration::from_secs(4))));
        assert_eq!((allowances.left("c", RATE, now).units, allowances.left("all", wide, now).units), (3, 0));
        let later = now + Duration::from_secs(4);
        allowances.charge("a", 3, RATE, later);
        assert_eq!(allowances.take_all(&[("a", RATE), ("all", wide)], 1, later), Err((0, Duration::from_millis(500))));
        assert_eq!(allowances.left("all", wide, later).units, 2);
    }

    #[test]
    fn what_is_charged_beyond_the_allowance_is_owed() {
        let (allowances, now) = (Allowances::new(10), Instant::now());
        allowances.charge((), 2, RATE, now);
        assert_eq!(allowances.left((), RATE, now).units, 1);
        allowances.charge((), 4, RATE, now);
        assert_eq!(allowances.take((), 1, RATE, now), Err(Duration::from_secs(2)));
        let left = |after_ms| allowances.left((), RATE, now + Duration::from_millis(after_ms)).units;
        assert_eq!([left(0), left(1_999), left(2_000), left(9_000)], [0, 0, 1, 3]);
    }

    #[test]
    fn memory_is_bounded_and_who_asks_all_the_time_is_not_forgotten() {
        let (allowances, now) = (Allowances::new(1_000), Instant::now());
        let mut refused = 0;
        for number in 0..10_000 {
            allowances.take(number, 1, RATE, now).unwrap();
            if number % 100 == 0 {
                refused += u32::from(allowances.take(u32::MAX, 1, RATE, now).is_err());
            }
        }
        assert!(allowances.names() <= 2_000);
        assert_eq!(refused, 97, "all but the first three");
    }
}
