//! What each tenant may submit to a flow: requests and bytes in a time, and jobs that are not over. Requests beyond it
//! are refused; commands wait in their topic.
//!
//! Answers tell it in the fields of draft-ietf-httpapi-ratelimit-headers-11. Each process counts requests and bytes by
//! itself. A request counts once, when it arrives, whatever its answer.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
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
use crate::limits::{Breadth, FlowLimits, Limits, Of, Policy};
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
    pub(crate) open_jobs: Arc<OpenJobs>,
}

impl Quotas {
    pub(crate) fn new(limits: FlowLimits) -> Self {
        let open_jobs = Arc::new(OpenJobs::new(limits.clone()));
        Self { limits, allowances: Allowances::new(NAMES_MAX), hasher: RandomState::default(), open_jobs }
    }

    /// Counts requests; more than one are taken together, or not at all.
    ///
    /// # Errors
    /// The problem 429, or 413 if so many never fit.
    pub(crate) fn requests(&self, of: Of<'_>, requests: usize) -> Result<(), Problem> {
        self.take(of, Policy::Requests, requests as u64)
    }

    /// Counts the bytes of a body.
    ///
    /// # Errors
    /// As [`Self::requests`].
    pub(crate) fn bytes(&self, of: Of<'_>, bytes: u64) -> Result<(), Problem> {
        self.take(of, Policy::Bytes, bytes)
    }

    /// True if the allowances hold so many commands and bytes. One command that is larger than its quota takes it all.
    pub(crate) fn hold(&self, of: Of<'_>, commands: u64, bytes: u64) -> bool {
        let now = Instant::now();
        self.rates(of).all(|(limit, rate)| {
            let units = limit.units(commands, bytes);
            let units = if commands == 1 { units.min(rate.quota) } else { units };
            self.allowances.left(self.key(of, limit), rate, now).units >= units
        })
    }

    /// Counts commands and their bytes.
    pub(crate) fn charge(&self, of: Of<'_>, commands: u64, bytes: u64) {
        let now = Instant::now();
        for (limit, rate) in self.rates(of) {
            self.allowances.charge(self.key(of, limit), limit.units(commands, bytes), rate, now);
        }
    }

    /// The rates that hold.
    fn rates(&self, of: Of<'_>) -> impl Iterator<Item = (Limit, Rate)> {
        self.limits.both(of.1).into_iter().flat_map(|(breadth, limits)| {
            let rates = [(Policy::Requests, limits.requests), (Policy::Bytes, limits.bytes)];
            rates.into_iter().filter_map(move |(policy, rate)| Some((Limit { breadth, policy }, rate?)))
        })
    }

    /// The key of an allowance.
    fn key(&self, (tenant, flow): Of<'_>, limit: Limit) -> u64 {
        match limit.breadth {
            Breadth::Flow => self.hasher.hash_one((tenant, limit, flow)),
            Breadth::Together => self.hasher.hash_one((tenant, limit)),
        }
    }

    fn take(&self, of: Of<'_>, policy: Policy, units: u64) -> Result<(), Problem> {
        let limits: Vec<_> = self.rates(of).filter(|(limit, _)| limit.policy == policy).collect();
        if limits.is_empty() {
            return Ok(());
        }
        if let Some((limit, rate)) = limits.iter().find(|(_, rate)| units > rate.quota) {
            let detail = format!("{}; the batch has {units}.", limit.takes(of.1, *rate));
            return Err(Problem::new(Kind::PayloadTooLarge, detail).with_remediation(BATCH_REMEDY));
        }
        let keys: Vec<_> = limits.iter().map(|(limit, rate)| (self.key(of, *limit), *rate)).collect();
        self.allowances.take_all(&keys, units, Instant::now()).map_err(|(place, left)| {
            let (limit, rate) = limits[place];
            let detail = format!("{}, from each caller.", limit.takes(of.1, rate));
            let remediation = "Send it again after the time in `Retry-After`. `RateLimit` tells what is left, before \
                               it is too much.";
            self.exceeded(of, limit, &detail, remediation, whole_seconds(left))
        })
    }

    fn exceeded(&self, of: Of<'_>, limit: Limit, detail: &str, remediation: &str, after_s: u64) -> Problem {
        let name = limit.name();
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
    ) -> Result<Admission, Problem> {
        let bounds = self.limits.both(of.1).map(|(_, limits)| limits.jobs);
        let [of_flow, together] = bounds;
        let Some(max) = of_flow.into_iter().chain(together).min() else {
            return Ok(Admission::unlimited(&self.open_jobs));
        };
        if jobs.len() as u64 > max {
            let (flow, count) = (of.1, jobs.len());
            let detail = format!("The flow `{flow}` has {max} jobs at once at most; the batch has {count}.");
            return Err(Problem::new(Kind::PayloadTooLarge, detail).with_remediation(BATCH_REMEDY));
        }
        self.open_jobs.admit(of, jobs, bounds).map_err(|breadth| {
            let (max, of_what) = match breadth {
                Breadth::Flow => (of_flow, format!("of the flow `{}`", of.1)),
                Breadth::Together => (together, "of all flows".to_owned()),
            };
            let max = max.unwrap_or_default();
            let detail = format!("{max} jobs {of_what} are not over, as many as there may be at once.");
            let remediation = "Send it again after the time in `Retry-After`, once earlier jobs have ended. Parked and \
                               delayed jobs count, too: `GET /v1/jobs` lists them.";
            let limit = Limit { breadth, policy: Policy::Jobs };
            self.exceeded(of, limit, &detail, remediation, until_room_s(max))
        })
    }

    /// A place for each of these jobs of commands among those that are not over. None: there are too few, and they
    /// wait.
    pub(crate) fn places(&self, of: Of<'_>, jobs: &[JobId]) -> Option<Admission> {
        let bounds = self.limits.both(of.1).map(|(_, limits)| limits.jobs);
        if bounds.iter().all(Option::is_none) {
            return Some(Admission::unlimited(&self.open_jobs));
        }
        self.open_jobs.admit(of, jobs, bounds).ok()
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
        let both = self.limits.both(of.1);
        if both.iter().all(|(_, limits)| *limits == Limits::default()) {
            return None;
        }
        let now = Instant::now();
        // Each flow has a quota of its own: it is the partition.
        let flow = format!(";pk=:{}:", STANDARD.encode(of.1));
        let partition = |breadth| if breadth == Breadth::Flow { flow.as_str() } else { "" };
        let mut told: Vec<_> = self
            .rates(of)
            .map(|(limit, rate)| {
                let left = self.allowances.left(self.key(of, limit), rate, now);
                (of_rate(limit, rate, left, retry_after_s), partition(limit.breadth))
            })
            .collect();
        for (breadth, limits) in both {
            let open = || self.open_jobs.count(of, breadth);
            told.extend(limits.jobs.map(|max| (of_jobs(breadth, max, open()), partition(breadth))));
        }
        let list = |item: fn(&(String, String)) -> &String| {
            let items: Vec<String> = told.iter().map(|(both, key)| format!("{}{key}", item(both))).collect();
            HeaderValue::try_from(items.join(", ")).ok()
        };
        Some([(RATE_LIMIT_POLICY, list(|both| &both.0)?), (RATE_LIMIT, list(|both| &both.1)?)])
    }
}

/// A limit, by what it bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Limit {
    breadth: Breadth,
    policy: Policy,
}

impl Limit {
    const fn name(self) -> &'static str {
        self.breadth.name(self.policy)
    }

    /// The units of it that so many requests of so many bytes are.
    const fn units(self, requests: u64, bytes: u64) -> u64 {
        if matches!(self.policy, Policy::Bytes) { bytes } else { requests }
    }

    /// The rate, in words.
    fn takes(self, flow: &str, Rate { quota, window }: Rate) -> String {
        let what = match self.breadth {
            Breadth::Flow => format!("The flow `{flow}` takes"),
            Breadth::Together => "All flows together take".to_owned(),
        };
        format!("{what} {quota} {} in {} s", self.policy.as_str(), window.as_secs())
    }
}

/// The items of a rate in both fields.
fn of_rate(limit: Limit, rate: Rate, left: Left, retry_after_s: Option<u64>) -> (String, String) {
    let unit = if limit.policy == Policy::Bytes { ";qu=\"content-bytes\"" } else { "" };
    let name = limit.name();
    let until = if left.units == 0 { left.next_after } else { left.whole_after };
    let window_s = whole_seconds(until).min(retry_after_s.unwrap_or(u64::MAX));
    let window = if until.is_zero() { String::new() } else { format!(";t={window_s}") };
    let quota = format!("\"{name}\";q={}{unit};w={}", rate.quota, rate.window.as_secs());
    (quota, format!("\"{name}\";r={}{window}", left.units))
}

/// The items of the limit of jobs. It has no window: jobs end when they end.
fn of_jobs(breadth: Breadth, max: u64, open: u64) -> (String, String) {
    let name = breadth.name(Policy::Jobs);
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
    fn all_flows_of_a_tenant_have_an_allowance_together_beside_their_own() {
        let limits = ["** requests=3/1h jobs=9", "order requests=2/1h"].map(str::to_owned);
        let quotas = Quotas::new(FlowLimits::parse(&limits).unwrap());
        let take = |tenant, flow| quotas.requests((tenant, flow), 1);
        let violated = |problem: Problem| (problem.kind(), problem.document("")["violated-policies"].clone());
        assert!(take("acme", "order").is_ok() && take("acme", "order").is_ok());
        assert_eq!(take("acme", "order").map_err(violated), Err((Kind::QuotaExceeded, json!(["requests"]))));
        assert!(take("acme", "plain").is_ok() && take("other", "plain").is_ok());
        assert_eq!(take("acme", "plain").map_err(violated), Err((Kind::QuotaExceeded, json!(["tenant-requests"]))));
        assert!(!quotas.hold(("acme", "third"), 1, 0) && quotas.hold(("other", "third"), 2, 0));
        let [policies, limits] = fields(&quotas, None);
        assert_eq!(
            policies,
            "\"requests\";q=2;w=3600;pk=:b3JkZXI=:, \"tenant-requests\";q=3;w=3600, \
             \"tenant-jobs\";q=9;qu=\"concurrent-requests\""
        );
        assert!(limits.ends_with("\"tenant-jobs\";r=9"), "{limits}");
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
