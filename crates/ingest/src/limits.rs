//! Limits of what a tenant may submit to a flow, as the configuration writes them. Pure.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use flow::definition::parse_duration_ms;

use crate::allowance::Rate;

/// The flow of an entry that holds for every flow without one of its own.
const ANY: &str = "*";
/// The flow of an entry that holds for all flows of a tenant together.
const TOGETHER: &str = "**";
/// A form that is taken, for messages.
const EXPECTED: &str = "`<flow, * or **> requests=<number>/<time> bytes=<number>/<time> jobs=<number>`, one of the \
                        three at least, times by whole seconds up to a day";
/// What a window may be, in milliseconds: whole seconds in the answers.
const SECOND_MS: u64 = 1_000;
const WINDOW_MS_MAX: u64 = 24 * 60 * 60 * SECOND_MS;
/// Quotas fit into the integers of structured fields (RFC 9651).
const QUOTA_MAX: u64 = 999_999_999_999_999;

/// What limits there are, by their names in the configuration and in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Policy {
    /// Requests that submit, each item of a batch counting as one.
    Requests,
    /// Bytes of their bodies.
    Bytes,
    /// Jobs that are not over.
    Jobs,
}

impl Policy {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
            Self::Jobs => "jobs",
        }
    }
}

/// What a limit bounds: one flow of a tenant, or all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Breadth {
    Flow,
    Together,
}

impl Breadth {
    /// The name of such a limit in answers.
    pub(crate) const fn name(self, policy: Policy) -> &'static str {
        match (self, policy) {
            (Self::Flow, policy) => policy.as_str(),
            (Self::Together, Policy::Requests) => "tenant-requests",
            (Self::Together, Policy::Bytes) => "tenant-bytes",
            (Self::Together, Policy::Jobs) => "tenant-jobs",
        }
    }
}

/// A tenant and a flow, to which limits apply.
pub(crate) type Of<'a> = (&'a str, &'a str);

/// Limits of one flow, for each tenant by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) requests: Option<Rate>,
    pub(crate) bytes: Option<Rate>,
    pub(crate) jobs: Option<u64>,
}

/// Limits by flow, and of all flows together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FlowLimits {
    together: Limits,
    any: Limits,
    named: HashMap<String, Limits>,
}

impl FlowLimits {
    /// # Errors
    /// The first entry that is none, in words.
    pub(crate) fn parse(entries: &[String]) -> Result<Self, String> {
        let mut limits = Self::default();
        let mut seen = HashSet::new();
        for entry in entries {
            let (flow, own) = parse_entry(entry).ok_or_else(|| format!("expected {EXPECTED}, found `{entry}`"))?;
            if !seen.insert(flow) {
                return Err(format!("`{flow}` has two entries"));
            }
            match flow {
                ANY => limits.any = own,
                TOGETHER => limits.together = own,
                _ => drop(limits.named.insert(flow.to_owned(), own)),
            }
        }
        Ok(limits)
    }

    pub(crate) fn of(&self, flow: &str) -> Limits {
        self.named.get(flow).copied().unwrap_or(self.any)
    }

    /// The limits that hold for a flow, each with what it bounds.
    pub(crate) fn both(&self, flow: &str) -> [(Breadth, Limits); 2] {
        [(Breadth::Flow, self.of(flow)), (Breadth::Together, self.together)]
    }

    /// True if the jobs of any flow are counted.
    pub(crate) fn counts_jobs(&self) -> bool {
        self.all().any(|limits| limits.jobs.is_some())
    }

    /// True if the jobs of this flow are counted.
    pub(crate) fn counts_jobs_of(&self, flow: &str) -> bool {
        self.both(flow).into_iter().any(|(_, limits)| limits.jobs.is_some())
    }

    /// The least quota of bytes; none where there is no such limit.
    pub(crate) fn bytes_least(&self) -> Option<u64> {
        self.all().filter_map(|limits| limits.bytes).map(|rate| rate.quota).min()
    }

    fn all(&self) -> impl Iterator<Item = &Limits> {
        self.named.values().chain([&self.any, &self.together])
    }
}

fn parse_entry(entry: &str) -> Option<(&str, Limits)> {
    let mut words = entry.split_whitespace();
    let flow = words.next().filter(|flow| !flow.contains('='))?;
    let mut limits = Limits::default();
    for word in words {
        let (name, value) = word.split_once('=')?;
        let is_second = match name {
            "requests" => limits.requests.replace(parse_rate(value)?).is_some(),
            "bytes" => limits.bytes.replace(parse_rate(value)?).is_some(),
            "jobs" => limits.jobs.replace(parse_quota(value)?).is_some(),
            _ => return None,
        };
        if is_second {
            return None;
        }
    }
    (limits != Limits::default()).then_some((flow, limits))
}

fn parse_rate(text: &str) -> Option<Rate> {
    let (quota, window) = text.split_once('/')?;
    let fits = |ms: &u64| (SECOND_MS..=WINDOW_MS_MAX).contains(ms) && ms.is_multiple_of(SECOND_MS);
    let window_ms = parse_duration_ms(window).filter(fits)?;
    Some(Rate { quota: parse_quota(quota)?, window: Duration::from_millis(window_ms) })
}

fn parse_quota(text: &str) -> Option<u64> {
    text.parse().ok().filter(|quota| (1..=QUOTA_MAX).contains(quota))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entries: &[&str]) -> Result<FlowLimits, String> {
        FlowLimits::parse(&entries.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_flow_has_the_limits_of_its_own_entry_or_else_those_of_all() {
        let limits = parse(&["* requests=600/1m", "order requests=5/10s bytes=1000/1h jobs=7"]).unwrap();
        let rate = |quota, seconds| Some(Rate { quota, window: Duration::from_secs(seconds) });
        let order = Limits { requests: rate(5, 10), bytes: rate(1_000, 3_600), jobs: Some(7) };
        assert_eq!(limits.of("order"), order);
        assert_eq!(limits.of("other"), Limits { requests: rate(600, 60), ..Limits::default() });
        assert!(limits.counts_jobs() && limits.bytes_least() == Some(1_000));
        let together = parse(&["** jobs=9"]).unwrap();
        assert_eq!(together.both("order")[1], (Breadth::Together, Limits { jobs: Some(9), ..Limits::default() }));
        assert!(together.counts_jobs_of("order") && limits.counts_jobs_of("order") && !limits.counts_jobs_of("other"));
        let none = parse(&[]).unwrap();
        assert_eq!((none.of("order"), none.counts_jobs(), none.bytes_least()), (Limits::default(), false, None));
    }

    #[test]
    fn an_entry_that_is_none_is_named() {
        for entry in [
            "",
            "order",
            "requests=5/10s",
            "order requests=5",
            "order requests=0/10s",
            "order requests=5/100ms",
            "order requests=5/1500ms",
            "order requests=5/2d",
            "order requests=5/10s requests=6/10s",
            "order jobs=7/1m",
            "order jobs=-1",
            "order calls=5/10s",
            "order bytes=1000000000000000/1s",
        ] {
            let told = parse(&["* jobs=1", entry]).unwrap_err();
            assert!(told.contains(&format!("found `{entry}`")) && told.contains("requests="), "{told}");
        }
        assert_eq!(parse(&["a jobs=1", "a jobs=2"]).unwrap_err(), "`a` has two entries");
        assert_eq!(parse(&["** jobs=1", "** jobs=2"]).unwrap_err(), "`**` has two entries");
        assert_eq!(parse(&["* jobs=1", "* jobs=2"]).unwrap_err(), "`*` has two entries");
    }
}
