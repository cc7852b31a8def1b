//! The delay until the next attempt: exponential, with full jitter that follows from the attempt itself.

use sha2::{Digest, Sha256};

use crate::definition::Retry;

/// Delays below this are waited for in the worker; longer ones rest as holds.
pub(super) const IN_PROCESS_BELOW_MS: u64 = 1_000;
/// A flow may come a moment after its first slip.
const LOOK_MIN_MS: u64 = 2_000;
const LOOK_UNREAD_MIN_MS: u64 = 10_000;
const LOOK_MAX_MS: u64 = 300_000;

/// The delay after `attempts` attempts. The same attempt always gets the same delay, so that a repeated decision is the
/// same decision.
pub(super) fn delay_ms(retry: &Retry, attempts: u32, idempotency_key: &str) -> u64 {
    let doublings = attempts.saturating_sub(1).min(63);
    let bound_ms = retry.backoff_min_ms.saturating_mul(1 << doublings).min(retry.backoff_max_ms);
    spread_ms(bound_ms, &format!("{idempotency_key}#{attempts}"))
}

/// The rest of a slip that has looked so often in a row, in vain, for what it needs: from two seconds it doubles to
/// five minutes, so that many slips that wait for long are little work. At least half of it always passes.
pub(super) fn look_again_ms(looks: u32, name: &str) -> u64 {
    let doublings = looks.saturating_sub(1).min(63);
    half_spread_ms(LOOK_MIN_MS.saturating_mul(1 << doublings).min(LOOK_MAX_MS), &format!("{name}#{looks}"))
}

/// The same for a record that does not tell how often: a quarter of its job's age.
pub(super) fn look_by_age_ms(age_ms: u64, name: &str) -> u64 {
    half_spread_ms((age_ms / 4).clamp(LOOK_UNREAD_MIN_MS, LOOK_MAX_MS), &format!("{name}#{age_ms}"))
}

fn half_spread_ms(bound_ms: u64, name: &str) -> u64 {
    bound_ms / 2 + spread_ms(bound_ms / 2, name)
}

/// A time from 0 to `bound_ms`, the same for the same name.
pub fn spread_ms(bound_ms: u64, name: &str) -> u64 {
    let digest = Sha256::digest(name.as_bytes());
    let chance = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    chance % bound_ms.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry { attempts: 100, backoff_min_ms: 200, backoff_max_ms: 30_000 };

    #[test]
    fn a_delay_never_exceeds_its_doubling_bound_nor_the_maximum() {
        for attempts in 1..=100 {
            let bound_ms = (200_u64 << (attempts - 1).min(20)).min(30_000);
            for job in 0..50 {
                assert!(delay_ms(&RETRY, attempts, &format!("job-{job}:step:1")) <= bound_ms);
            }
        }
    }

    #[test]
    fn jitter_spreads_jobs_over_the_whole_range() {
        let delays: Vec<u64> = (0..1_000).map(|job| delay_ms(&RETRY, 8, &format!("job-{job}"))).collect();
        assert!(delays.iter().any(|delay| *delay < 2_000) && delays.iter().any(|delay| *delay > 23_000));
    }

    #[test]
    fn looks_in_vain_become_rare_and_do_not_fall_together() {
        let rests: Vec<u64> = (1..=12).map(|looks| look_again_ms(looks, "job")).collect();
        let bounds = [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300].map(|seconds| seconds * 1_000);
        assert!(rests.iter().zip(bounds).all(|(rest, bound)| (bound / 2..=bound).contains(rest)), "{rests:?}");
        // A hundred thousand jobs that wait are some hundred looks a second.
        let per_second: f64 = (0..1_000).map(|job| 1e8 / look_again_ms(20, &format!("job-{job}")) as f64).sum();
        assert!(per_second / 1_000.0 < 500.0, "{per_second}");
        assert!(look_again_ms(u32::MAX, "job") <= LOOK_MAX_MS);
        assert!((5_000..=10_000).contains(&look_by_age_ms(0, "job")));
        assert!((150_000..=300_000).contains(&look_by_age_ms(u64::MAX, "job")));
    }

    #[test]
    fn the_same_attempt_gets_the_same_delay() {
        assert_eq!(delay_ms(&RETRY, 3, "a:b:1"), delay_ms(&RETRY, 3, "a:b:1"));
    }
}
