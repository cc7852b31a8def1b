//! The delay until the next attempt: exponential, with full jitter that follows from the attempt itself.

use sha2::{Digest, Sha256};

use crate::definition::Retry;

/// Delays below this are waited for in the worker; longer ones rest as holds.
pub(super) const IN_PROCESS_BELOW_MS: u64 = 1_000;

/// The delay after `attempts` attempts. The same attempt always gets the same delay, so that a repeated decision is the
/// same decision.
pub(super) fn delay_ms(retry: &Retry, attempts: u32, idempotency_key: &str) -> u64 {
    let doublings = attempts.saturating_sub(1).min(63);
    let bound_ms = retry.backoff_min_ms.saturating_mul(1 << doublings).min(retry.backoff_max_ms);
    spread_ms(bound_ms, &format!("{idempotency_key}#{attempts}"))
}

/// A time from 0 to `bound_ms`, the same for the same name.
pub(super) fn spread_ms(bound_ms: u64, name: &str) -> u64 {
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
    fn the_same_attempt_gets_the_same_delay() {
        assert_eq!(delay_ms(&RETRY, 3, "a:b:1"), delay_ms(&RETRY, 3, "a:b:1"));
    }
}
