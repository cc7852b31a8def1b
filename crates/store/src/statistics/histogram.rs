//! Durations in bins whose width grows with them: any two histograms add up, and none grows without end. Pure.

/// Bins in each doubling of the duration: a bin is at most an eighth as wide as its durations are long.
const PER_OCTAVE: u64 = 8;
const OCTAVES: u64 = 36;
/// Bins of a histogram. The last one takes all that is longer (two years).
const BINS: usize = (PER_OCTAVE * OCTAVES) as usize;

/// Counts of durations in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// From the first bin on, without the empty ones at the end.
    counts: Vec<u64>,
    sum_ms: u64,
}

/// A duration below a millisecond counts as one.
fn bin_of(ms: u64) -> usize {
    let ms = ms.max(1);
    let octave = u64::from(ms.ilog2());
    let within = ((u128::from(ms) * u128::from(PER_OCTAVE)) >> octave) as u64 - PER_OCTAVE;
    usize::try_from(octave * PER_OCTAVE + within).unwrap_or(BINS).min(BINS - 1)
}

/// The bounds of a bin, in milliseconds.
fn bounds_ms(bin: usize) -> (f64, f64) {
    let (octave, within) = (bin / PER_OCTAVE as usize, bin % PER_OCTAVE as usize);
    let unit = 2_f64.powi(i32::try_from(octave).unwrap_or_default()) / PER_OCTAVE as f64;
    let low = unit * (PER_OCTAVE as usize + within) as f64;
    (low, low + unit)
}

impl Histogram {
    pub fn add(&mut self, ms: u64) {
        let bin = bin_of(ms);
        self.counts.resize(self.counts.len().max(bin + 1), 0);
        self.counts[bin] = self.counts[bin].saturating_add(1);
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }

    pub fn merge(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        for (own, more) in self.counts.iter_mut().zip(&other.counts) {
            *own = own.saturating_add(*more);
        }
        self.sum_ms = self.sum_ms.saturating_add(other.sum_ms);
    }

    /// The durations that were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn mean_ms(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum_ms as f64 / count as f64)
    }

    /// The duration that this part of all (0 to 1) does not exceed.
    pub fn quantile_ms(&self, part: f64) -> Option<f64> {
        self.quantile_beyond_ms(part, 0.0)
    }

    /// The same of those only that last longer than `beyond_ms`. None if none did.
    pub fn quantile_beyond_ms(&self, part: f64, beyond_ms: f64) -> Option<f64> {
        // A bin that is begun counts with the part of it that is left.
        let weight = |bin: usize, count: u64| {
            let (low, high) = bounds_ms(bin);
            count as f64 * ((high - low.max(beyond_ms)) / (high - low)).clamp(0.0, 1.0)
        };
        let weights = || self.counts.iter().enumerate().map(|(bin, count)| (bin, weight(bin, *count)));
        let total: f64 = weights().map(|(_, weight)| weight).sum();
        if total <= 0.0 {
            return None;
        }
        let (mut before, wanted) = (0.0, total * part.clamp(0.0, 1.0));
        let filled = weights().filter(|(_, weight)| *weight > 0.0);
        let mut last = None;
        for (bin, weight) in filled {
            let (low, high) = bounds_ms(bin);
            let low = low.max(beyond_ms);
            if before + weight >= wanted {
                return Some(low + (high - low) * ((wanted - before) / weight));
            }
            before += weight;
            last = Some(high);
        }
        last
    }

    pub(super) const fn sum_ms(&self) -> u64 {
        self.sum_ms
    }

    /// As Postgres writes an array.
    pub(super) fn as_array(&self) -> String {
        let counts: Vec<String> =
            self.counts.iter().map(|count| i32::try_from(*count).unwrap_or(i32::MAX).to_string()).collect();
        format!("{{{}}}", counts.join(","))
    }

    pub(super) fn of(counts: &[i64], sum_ms: i64) -> Self {
        let counts = counts.iter().take(BINS).map(|count| count.unsigned_abs()).collect();
        Self { counts, sum_ms: u64::try_from(sum_ms).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(durations: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        durations.into_iter().for_each(|ms| histogram.add(ms));
        histogram
    }

    #[test]
    fn a_duration_lies_in_its_bin_which_is_narrow() {
        let mut before = 0;
        for ms in (0..100_000).chain([u64::from(u32::MAX), 1 << 35]) {
            let (bin, ms) = (bin_of(ms), ms.max(1) as f64);
            let (low, high) = bounds_ms(bin);
            assert!(low <= ms && ms < high && high - low <= ms / 8.0 + f64::EPSILON, "{ms}: {low} to {high}");
            assert!(bin >= before, "bins rise with durations");
            before = bin;
        }
        assert_eq!(bin_of(u64::MAX), BINS - 1);
    }

    #[test]
    fn quantiles_are_as_exact_as_the_bins_however_the_durations_were_gathered() {
        let whole = of(1..=10_000);
        let mut parts = of((1..=10_000).filter(|ms| ms % 3 == 0));
        parts.merge(&of((1..=10_000).filter(|ms| ms % 3 != 0)));
        assert_eq!(whole, parts);
        for (part, wanted) in [(0.5, 5_000.0), (0.95, 9_500.0), (0.99, 9_900.0), (1.0, 10_000.0)] {
            let found = whole.quantile_ms(part).unwrap();
            assert!((found - wanted).abs() < wanted / 16.0, "{part}: {found}");
        }
        assert_eq!((whole.count(), whole.mean_ms()), (10_000, Some(5_000.5)));
        assert_eq!((Histogram::default().quantile_ms(0.5), Histogram::default().mean_ms()), (None, None));
    }

    #[test]
    fn what_has_lasted_already_is_compared_with_those_that_lasted_longer() {
        let histogram = of((0..90).map(|_| 100).chain((0..10).map(|_| 10_000)));
        let expected = |beyond_ms| histogram.quantile_beyond_ms(0.5, beyond_ms);
        assert!((expected(0.0).unwrap() - 100.0).abs() < 10.0);
        assert!((expected(500.0).unwrap() - 10_000.0).abs() < 1_000.0);
        assert_eq!(expected(20_000.0), None);
    }

    #[test]
    fn it_is_stored_and_read_as_it_is() {
        let histogram = of([0, 3, 3, 70_000]);
        let text = histogram.as_array();
        let counts: Vec<i64> = text.trim_matches(['{', '}']).split(',').map(|count| count.parse().unwrap()).collect();
        assert_eq!(Histogram::of(&counts, i64::try_from(histogram.sum_ms()).unwrap()), histogram);
    }
}
