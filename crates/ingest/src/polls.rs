//! A caller who asks for the same job too often is told when to ask again.
//!
//! Each caller and job has an allowance that grows with time up to a bound, so the first requests after a submit are
//! always answered. A request counts once, when it arrives, whatever its answer: 200, 304, or that of a long wait. Jobs
//! beyond a bounded number are forgotten, those first that nobody has asked for lately; forgotten ones begin anew.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use flow::id::JobId;
use serde_json::json;
use tokio::time::Instant;
use web::caller::Caller;
use web::problem::{Kind, Problem};

use crate::allowance::{Allowances, Rate};

/// Jobs of either half that are kept in mind; each takes some 50 bytes.
const JOBS_MAX: usize = 50_000;

pub(crate) struct Polls {
    /// By tenant and job.
    allowances: Allowances<(u64, JobId)>,
    hasher: RandomState,
}

impl Default for Polls {
    fn default() -> Self {
        Self { allowances: Allowances::new(JOBS_MAX), hasher: RandomState::default() }
    }
}

impl Polls {
    /// The problem 429 for a caller who has asked for this job too often: more than `per_s` times a second, beyond the
    /// first `burst`.
    pub(crate) fn check(&self, caller: &Caller, job: &str, (per_s, burst): (u32, u32)) -> Result<(), Problem> {
        let Some(every) = Duration::from_secs(1).checked_div(per_s) else { return Ok(()) };
        let Ok(job) = job.parse::<JobId>() else { return Ok(()) };
        let rate = Rate { quota: burst.max(1).into(), window: every * burst.max(1) };
        let name = (self.hasher.hash_one(&caller.tenant), job);
        self.allowances.take(name, 1, rate, Instant::now()).map_err(|left| {
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
