//! What each tenant may submit to a flow: requests and bytes in a time, and jobs that are not over. Requests beyond it
//! are refused; commands wait in their topic.
//!
//! Answers tell it in the fields of draft-ietf-httpapi-ratelimit-headers-11. Each process counts requests and bytes by
//! itself. A request counts once, when it arrives, whatever its answer.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flow::id::JobId;
use serde_json::json;
use tokio::time::Instant;
use web::problem::{Kind, Problem};

use crate::allowance::{Allowances, Left, Rate};
use crate::limits::{FlowLimits, Limits, Of, Policy};
use crate::open_jobs::{Admission, OpenJobs};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Tenants, flows and policies of either half that are kept in mind; each takes some 40 bytes.
const NAMES_MAX: usize = 50_000;
const BATCH_REMEDY: &str = "Send smaller batches, or one item a line as `application/x-ndjson` without `atomic`.";

pub(crate) struct Quotas {
    limits: FlowLimits,
    allowances: Allowances<u64>,
    hasher: RandomState,
    pub(crate) open_jobs: OpenJobs,
}

impl Quotas {
    pub(crate) fn new(limits: FlowLimits) -> Self {
        let open_jobs = OpenJobs::new(limits.clone());
        Self { limits, allowances: Allowances::new(NAMES_MAX), hasher: RandomState::default(), open_jobs }
    }

    /// Counts requests; more than one are taken together, or not at all.
    ///
    /// # Errors
    /// The problem 429, or 413 if so many never fit.
    pub(crate) fn requests(&self, of: Of<'_>, requests: usize) -> Result<(), Problem> {
        let Some(rate) = self.limits.of(of.1).requests else { return Ok(()) };
        self.take(of, Policy::Requests, rate, requests as u64)
    }

    /// Counts the bytes of a body.
    ///
    /// # Errors
    /// As [`Self::requests`].
    pub(crate) fn bytes(&self, of: Of<'_>, bytes: u64) -> Result<(), Problem> {
        let Some(rate) = self.limits.of(of.1).bytes else { return Ok(()) };
        self.take(of, Policy::Bytes, rate, bytes)
    }

    /// True if the allowances hold so many commands and bytes. One command that is larger than its quota takes it all.
    pub(crate) fn hold(&self, of: Of<'_>, commands: u64, bytes: u64) -> bool {
        let now = Instant::now();
        self.rates(of, commands, bytes).all(|(policy, rate, units)| {
            let units = if commands == 1 { units.min(rate.quota) } else { units };
            self.allowances.left(self.name(of, policy), rate, now).units >= units
        })
    }

    /// Counts commands and their bytes.
    pub(crate) fn charge(&self, of: Of<'_>, commands: u64, bytes: u64) {
        let now = Instant::now();
        for (policy, rate, units) in self.rates(of, commands, bytes) {
            self.allowances.charge(self.name(of, policy), units, rate, now);
        }
    }

    /// The rates that hold, each with the units of it.
    fn rates(&self, of: Of<'_>, requests: u64, bytes: u64) -> impl Iterator<Item = (Policy, Rate, u64)> {
        let limits = self.limits.of(of.1);
        let rates = [(Policy::Requests, limits.requests, requests), (Policy::Bytes, limits.bytes, bytes)];
        rates.into_iter().filter_map(|(policy, rate, units)| Some((policy, rate?, units)))
    }

    fn name(&self, of: Of<'_>, policy: Policy) -> u64 {
        self.hasher.hash_one((of, policy))
    }

    fn take(&self, of: Of<'_>, policy: Policy, rate: Rate, units: u64) -> Result<(), Problem> {
        let Rate { quota, window } = rate;
        let (flow, what, seconds) = (of.1, policy.as_str(), window.as_secs());
        if units > quota {
            let detail = format!("The flow `{flow}` takes {quota} {what} in {seconds} s; the batch has {units}.");
            return Err(Problem::new(Kind::PayloadTooLarge, detail).with_remediation(BATCH_REMEDY));
        }
        self.allowances.take(self.name(of, policy), units, rate, Instant::now()).map_err(|left| {
            let detail = format!("The flow `{flow}` takes {quota} {what} of each caller in {seconds} s.");
            let remediation = "Send it again after the time in `Retry-After`. `RateLimit` tells what is left, before \
                               it is too much.";
            self.exceeded(of, policy, &detail, remediation, whole_seconds(left))
        })
    }

    fn exceeded(&self, of: Of<'_>, policy: Policy, detail: &str, remediation: &str, after_s: u64) -> Problem {
        let name = policy.as_str();
        metrics::counter!("meanwhile_submits_refused_total", "flow" => of.1.to_owned(), "policy" => name).increment(1);
        let problem = Problem::new(Kind::QuotaExceeded, detail)
            .with_remediation(remediation)
            .with("violated-policies", json!([name]))
            .retry_after_s(after_s);
        let fields = self.fields(of, Some(after_s)).into_iter().flatten();
        fields.fold(problem, |problem, (name, value)| problem.with_header(name, value))
    }

    /// Admits jobs among those of their flow that are not over, all or none. `until_room_s` says when to come again,
    /// given the limit.
    ///
    /// # Errors
    /// The problem 429 where there are as many as there may be, or 413 if so many never fit.
    pub(crate) fn admit(
        &self,
        of: Of<'_>,
        jobs: &[JobId],
        until_room_s: impl FnOnce(u64) -> u64,
    ) -> Result<Admission<'_>, Problem> {
        let Some(max) = self.limits.of(of.1).jobs else { return Ok(Admission::unlimited(&self.open_jobs)) };
        if jobs.len() as u64 > max {
            let (flow, count) = (of.1, jobs.len());
            let detail = format!("The flow `{flow}` has {max} jobs at once at most; the batch has {count}.");
            return Err(Problem::new(Kind::PayloadTooLarge, detail).with_remediation(BATCH_REMEDY));
        }
        self.open_jobs.admit(of, jobs, max).ok_or_else(|| {
            let detail = format!("{max} jobs of the flow `{}` are not over, as many as there may be at once.", of.1);
            let remediation = "Send it again after the time in `Retry-After`, once earlier jobs have ended. Parked and \
                               delayed jobs count, too: `GET /v1/jobs` lists them.";
            self.exceeded(of, Policy::Jobs, &detail, remediation, until_room_s(max))
        })
    }

    /// Tells in an answer what is left.
    pub(crate) fn tell(&self, of: Of<'_>, answer: Result<Response, Problem>) -> Result<Response, Problem> {
        // A refusal has told it already, in the measure of its own `Retry-After`.
        let is_told = answer.as_ref().is_err_and(|problem| problem.kind() == Kind::QuotaExceeded);
        let Some(fields) = self.fields(of, None).filter(|_| !is_told) else { return answer };
        fields.into_iter().fold(answer, |answer, (name, value)| match answer {
            Ok(mut response) => {
                response.headers_mut().insert(name, value);
                Ok(response)
            }
            Err(problem) => Err(problem.with_header(name, value)),
        })
    }

    /// `RateLimit-Policy` and `RateLimit`; none where there is no limit. No effective window is told that ends after
    /// `Retry-After`.
    fn fields(&self, of: Of<'_>, retry_after_s: Option<u64>) -> Option<[(HeaderName, HeaderValue); 2]> {
        let limits = self.limits.of(of.1);
        if limits == Limits::default() {
            return None;
        }
        let now = Instant::now();
        let left = |policy, rate| self.allowances.left(self.name(of, policy), rate, now);
        let rates = self.rates(of, 0, 0);
        let mut told: Vec<_> =
            rates.map(|(policy, rate, _)| of_rate(policy, rate, left(policy, rate), retry_after_s)).collect();
        told.extend(limits.jobs.map(|max| of_jobs(max, self.open_jobs.count(of))));
        // Each flow has a quota of its own: it is the partition.
        let key = format!("pk=:{}:", STANDARD.encode(of.1));
        let list = |items: Vec<&String>| {
            let items: Vec<String> = items.into_iter().map(|item| format!("{item};{key}")).collect();
            HeaderValue::try_from(items.join(", ")).ok()
        };
        let policies = list(told.iter().map(|(policy, _)| policy).collect())?;
        let limits = list(told.iter().map(|(_, limit)| limit).collect())?;
        Some([(RATE_LIMIT_POLICY, policies), (RATE_LIMIT, limits)])
    }
}

/// The items of a rate in both fields.
fn of_rate(policy: Policy, rate: Rate, left: Left, retry_after_s: Option<u64>) -> (String, String) {
    let unit = if policy == Policy::Bytes { ";qu=\"content-bytes\"" } else { "" };
    let name = policy.as_str();
    let until = if left.units == 0 { left.next_after } else { left.whole_after };
    let window_s = whole_seconds(until).min(retry_after_s.unwrap_or(u64::MAX));
    let window = if until.is_zero() { String::new() } else { format!(";t={window_s}") };
    let quota = format!("\"{name}\";q={}{unit};w={}", rate.quota, rate.window.as_secs());
    (quota, format!("\"{name}\";r={}{window}", left.units))
}

/// The items of the limit of jobs. It has no window: jobs end when they end.
fn of_jobs(max: u64, open: u64) -> (String, String) {
    let name = Policy::Jobs.as_str();
    let quota = format!("\"{name}\";q={max};qu=\"concurrent-requests\"");
    (quota, format!("\"{name}\";r={}", max.saturating_sub(open)))
}

fn whole_seconds(time: Duration) -> u64 {
    (time.as_secs_f64().ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(entry: &str) -> Quotas {
        Quotas::new(FlowLimits::parse(&[entry.to_owned()]).unwrap())
    }

    fn fields(quotas: &Quotas, retry_after_s: Option<u64>) -> [String; 2] {
        quotas.fields(("acme", "order"), retry_after_s).unwrap().map(|(_, value)| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn both_fields_name_each_limit_with_its_unit_and_the_flow_as_partition() {
        let quotas = quotas("order requests=100/1h bytes=4096/1m jobs=7");
        assert_eq!(
            fields(&quotas, None),
            [
                "\"requests\";q=100;w=3600;pk=:b3JkZXI=:, \
                 \"bytes\";q=4096;qu=\"content-bytes\";w=60;pk=:b3JkZXI=:, \
                 \"jobs\";q=7;qu=\"concurrent-requests\";pk=:b3JkZXI=:",
                "\"requests\";r=100;pk=:b3JkZXI=:, \"bytes\";r=4096;pk=:b3JkZXI=:, \"jobs\";r=7;pk=:b3JkZXI=:",
            ]
        );
        quotas.requests(("acme", "order"), 50).unwrap();
        let [_, limit] = fields(&quotas, None);
        assert!(limit.starts_with("\"requests\";r=50;t=1800;"), "{limit}");
        let [_, limit] = fields(&quotas, Some(9));
        assert!(limit.starts_with("\"requests\";r=50;t=9;"), "not beyond Retry-After: {limit}");
        assert!(quotas.fields(("acme", "other"), None).is_none());
    }

    #[test]
    fn commands_are_held_to_what_is_left_and_one_that_never_fits_takes_it_all() {
        let quotas = quotas("order requests=4/1h bytes=100/1h");
        let hold = |commands, bytes| quotas.hold(("acme", "order"), commands, bytes);
        assert_eq!([hold(4, 100), hold(5, 50), hold(2, 101), hold(1, 101)], [true, false, false, true]);
        quotas.charge(("acme", "order"), 1, 50);
        assert_eq!([hold(3, 50), hold(4, 50), hold(1, 101), hold(1, 51)], [true, false, false, false]);
        assert_eq!(quotas.requests(("acme", "order"), 4).map_err(|problem| problem.kind()), Err(Kind::QuotaExceeded));
    }

    #[test]
    fn each_tenant_and_flow_has_an_allowance_of_its_own_and_what_never_fits_is_said_so() {
        let quotas = quotas("* requests=2/1h");
        let take = |tenant, flow| quotas.requests((tenant, flow), 1).map_err(|problem| problem.kind());
        assert_eq!([take("acme", "a"), take("acme", "a")], [Ok(()); 2]);
        assert_eq!(take("acme", "a"), Err(Kind::QuotaExceeded));
        assert_eq!([take("acme", "b"), take("other", "a")], [Ok(()); 2]);
        let never = quotas.requests(("acme", "c"), 3).unwrap_err();
        assert_eq!(never.kind(), Kind::PayloadTooLarge);
        assert!(never.detail().contains("takes 2 requests in 3600 s; the batch has 3"), "{never}");
    }
}
