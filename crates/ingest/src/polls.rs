//! A caller who asks for the same job too often is told when to ask again.
//!
//! Each caller and job has an allowance that grows with time up to a bound, so the first requests after a submit are
//! always answered. A request counts once, when it arrives, whatever its answer: 200, 304, or that of a long wait. Jobs
//! beyond a bounded number are forgotten, those first that nobody has asked for lately; forgotten ones begin anew.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use flow::id::JobId;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use web::caller::Caller;
use web::problem::{Kind, Problem};

/// Jobs of either half that are kept in mind; each takes some 50 bytes.
const JOBS_MAX: usize = 50_000;

/// Who asks for what.
type Name = (u64, JobId);

/// When the allowance of each is whole again.
#[derive(Default)]
struct Halves {
    young: HashMap<Name, Instant>,
    old: HashMap<Name, Instant>,
}

#[derive(Default)]
pub(crate) struct Polls {
    halves: Mutex<Halves>,
    hasher: RandomState,
}

impl Polls {
    /// Takes one request from the allowance: `burst` at once, and one more each `every`. Otherwise the time until it
    /// holds one again.
    fn take(
        &self,
        (tenant, job): (&str, JobId),
        (burst, every): (u32, Duration),
        now: Instant,
    ) -> Result<(), Duration> {
        let name = (self.hasher.hash_one(tenant), job);
        let mut halves = self.halves.lock();
        let known = halves.young.get(&name).or_else(|| halves.old.get(&name)).copied();
        let whole_at = known.map_or(now, |whole_at| whole_at.max(now)) + every;
        let too_far = (whole_at - now).saturating_sub(every * burst.max(1));
        if !too_far.is_zero() {
            return Err(too_far);
        }
        if halves.young.len() >= JOBS_MAX {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(name, whole_at);
        Ok(())
    }

    /// The problem 429 for a caller who has asked for this job too often: more than `per_s` times a second, beyond the
    /// first `burst`.
    pub(crate) fn check(&self, caller: &Caller, job: &str, (per_s, burst): (u32, u32)) -> Result<(), Problem> {
        let Some(every) = Duration::from_secs(1).checked_div(per_s) else { return Ok(()) };
        let Ok(job) = job.parse::<JobId>() else { return Ok(()) };
        self.take((&caller.tenant, job), (burst, every), Instant::now()).map_err(|left| {
            metrics::counter!("meanwhile_polls_refused_total").increment(1);
            let detail = format!("The job was asked for too often: {per_s} times a second, {burst} at once.");
            let remediation =
                "Ask again after the time in `Retry-After`, or let an answer wait for a change (`?wait=30`).";
            Problem::new(Kind::QuotaExceeded, detail)
                .with_remediation(remediation)
                .with("violated-policies", json!(["polls"]))
                .with_job(job)
                .retry_after_s(left.as_secs_f64().ceil().max(1.0) as u64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: (u32, Duration) = (3, Duration::from_millis(500));

    fn job(number: u128) -> JobId {
        JobId::new(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn the_first_are_free_and_then_as_many_as_time_gives() {
        let (polls, now) = (Polls::default(), Instant::now());
        let take =
            |tenant, number, after_ms| polls.take((tenant, job(number)), RATE, now + Duration::from_millis(after_ms));
        assert_eq!([(); 3].map(|()| take("acme", 1, 0)), [Ok(()); 3]);
        assert_eq!(take("acme", 1, 0), Err(Duration::from_millis(500)));
        assert_eq!(take("acme", 1, 400), Err(Duration::from_millis(100)), "a refused one takes nothing");
        assert_eq!((take("acme", 2, 0), take("other", 1, 0)), (Ok(()), Ok(())), "each job and caller by itself");
        assert_eq!((take("acme", 1, 500), take("acme", 1, 500).is_err()), (Ok(()), true));
        assert_eq!([(); 3].map(|()| take("acme", 1, 60_000)), [Ok(()); 3], "never more than the burst");
        assert!(take("acme", 1, 60_000).is_err());
    }

    #[test]
    fn memory_is_bounded_and_who_asks_all_the_time_is_not_forgotten() {
        let (polls, now) = (Polls::default(), Instant::now());
        let greedy = u128::MAX;
        let mut refused = 0;
        for number in 0..(3 * JOBS_MAX as u128) {
            polls.take(("acme", job(number)), RATE, now).unwrap();
            if number % 1_000 == 0 {
                refused += u32::from(polls.take(("acme", job(greedy)), RATE, now).is_err());
            }
        }
        let halves = polls.halves.lock();
        assert!(halves.young.len() <= JOBS_MAX && halves.old.len() <= JOBS_MAX);
        assert!(refused > 100, "{refused} of 150");
    }
}
