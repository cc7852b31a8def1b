//! The settings of this service; `default.toml` beside it says what each is for.

use std::fmt::Display;
use std::time::Duration;

use serde::Deserialize;
use service_kit::config::{ConfigError, Sources, load};
use web::browsers::Origins;
use web::caller::Caller;
use web::client_address::{ForwardedHeader, Proxies};
use web::server::Limits;

use crate::auth::is_tenant;
use crate::limits::FlowLimits;

/// The section's name in files and in the environment (`MEANWHILE__INGEST__...`).
pub const SECTION: &str = "ingest";
/// The compiled-in defaults, which are the reference too.
pub const DEFAULT: &str = include_str!("default.toml");

/// The section `[ingest]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Bodies over this are answered with 413, in bytes.
    pub body_bytes_max: usize,
    /// Idempotency keys are remembered for so many hours.
    pub idempotency_retention_h: u32,
    /// An acceptance is kept for so many days after its job's end; 0: for ever.
    pub keep_jobs_d: u32,
    /// An entry of the audit log is kept for so many days; 0: for ever.
    pub keep_audit_d: u32,
    /// True if a submit over HTTP must carry an `Idempotency-Key`.
    pub idempotency_key_required: bool,
    /// The value of `Retry-After` while nothing is known of how long jobs take, in seconds.
    pub retry_after_s: u64,
    /// The largest value of `Retry-After` about a job, in seconds.
    pub retry_after_max_s: u64,
    /// Requests for one job that a caller may make in a second; 0: as many as it likes.
    pub polls_per_s: u32,
    /// Such requests at once.
    pub polls_burst: u32,
    /// Limits of what a tenant may submit to a flow, one entry a flow.
    pub flow_limits: Vec<String>,
    /// Batches that are read whole have so many bytes together, at most.
    pub whole_batches_bytes_max: usize,
    /// The longest time for which a request may wait for a job, in seconds.
    pub wait_max_s: u64,
    /// Requests that may wait for jobs at once; 0: none.
    pub waiters_max: usize,
    /// Requests that may be on their way to old services at once.
    pub proxied_max: usize,
    /// The most bytes of a body that is passed on to an old service.
    pub proxied_body_bytes_max: u64,
    /// The longest pause in an old service's answer, in seconds.
    pub proxied_pause_max_s: u64,
    /// The pause between two looks at the flags that no notification has caused, in seconds.
    pub flags_look_s: u64,
    /// Streams of events that may be open at once.
    pub streams_max: usize,
    /// Bytes of events that may wait for one stream of a job.
    pub stream_bytes_max: usize,
    /// Bytes of events that may wait for all of these.
    pub streams_bytes_max: usize,
    /// Bytes of the latest events of all jobs that are kept for streams of all jobs.
    pub stream_log_bytes_max: usize,
    /// A stream that has nothing to tell for so many seconds says that it is still there.
    pub stream_heartbeat_s: u64,
    /// The longest time for which a slip may wait in a queue that takes new jobs, in seconds; 0: for ever.
    pub queue_age_max_s: u64,
    /// Requests are still taken for so many milliseconds after the process was asked to end.
    pub leave_after_ms: u64,
    /// After that, callers that are owed the outcome of a job are held for so many milliseconds at most.
    pub drain_timeout_ms: u64,
    /// Jobs whose freshest state is kept in memory.
    pub recent_jobs_max: usize,
    /// Database connections.
    pub connections_max: u32,
    /// Origins whose pages may ask and read answers; `*` alone: any.
    pub cors_origins: Vec<String>,
    /// Networks of the proxies that are believed when they say who the client is.
    pub trusted_proxies: Vec<String>,
    /// The header in which they say so.
    pub forwarded_header: String,
    /// The tenant of `meanwhile.commands`, and of requests where nobody is asked who they are.
    pub default_tenant: String,
    /// Tenants that have a topic of commands of their own.
    pub commands_tenants: Vec<String>,
    /// The page on which a person sees a trace: a URL with `{trace_id}` in it; empty: none.
    pub trace_url: String,
}

/// The time for sending the answers to callers that are held no longer.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);
/// The time that the parts of the process have to end once all requests are answered.
const LEAVE_MARGIN: Duration = Duration::from_secs(8);

/// The subject of jobs from `meanwhile.commands`.
const COMMANDS: &str = "commands";

/// Each has a reader and a look at Kafka of its own.
const COMMANDS_TENANTS_MAX: usize = 100;
/// The database keeps entries of the audit log for so many days, whatever is asked of it.
const AUDIT_DAYS_MIN: u32 = 30;

/// The part of [`Config::trace_url`] that is replaced by the trace's id.
const TRACE_ID: &str = "{trace_id}";

impl Config {
    /// The page on which a person sees this trace.
    pub(crate) fn url_of_trace(&self, trace_id: &str) -> Option<String> {
        (!self.trace_url.is_empty()).then(|| self.trace_url.replace(TRACE_ID, trace_id))
    }

    /// Requests for one job that a caller may make in a second, and at once.
    pub(crate) const fn polls(&self) -> (u32, u32) {
        (self.polls_per_s, self.polls_burst)
    }

    /// The caller that the records of `meanwhile.commands` stand for: Kafka itself says who may write them.
    pub(crate) fn commands_caller(&self) -> Caller {
        self.commands_caller_of(&self.default_tenant)
    }

    /// The caller that the records of a tenant's own topic of commands stand for.
    pub(crate) fn commands_caller_of(&self, tenant: &str) -> Caller {
        Caller { subject: COMMANDS.to_owned(), ..Caller::unrestricted(tenant) }
    }

    /// # Errors
    /// One of the tenants can be none, has its topic already, or is one too many.
    fn check_commands_tenants(&self) -> Result<(), ConfigError> {
        let tenants = &self.commands_tenants;
        let refuse = |said: String| Err(invalid("commands_tenants", &said));
        if tenants.len() > COMMANDS_TENANTS_MAX {
            return refuse(format!("expected {COMMANDS_TENANTS_MAX} tenants at most, found {}", tenants.len()));
        }
        for (place, tenant) in tenants.iter().enumerate() {
            if !is_tenant(tenant) {
                return refuse(format!("expected letters, digits, `.`, `_` and `-`, found `{tenant}`"));
            }
            if *tenant == self.default_tenant || tenants[..place].contains(tenant) {
                return refuse(format!("`{tenant}` has a topic already"));
            }
        }
        Ok(())
    }

    /// The pause between two looks at the flags.
    pub(crate) const fn flags_look(&self) -> Duration {
        Duration::from_secs(self.flags_look_s)
    }

    /// The longest time for which callers are held that are owed an outcome, once the process leaves.
    pub(crate) const fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }

    /// The time in which the process has left once it was asked to.
    pub fn leave_timeout(&self) -> Duration {
        Duration::from_millis(self.leave_after_ms) + self.answer_timeout() + LEAVE_MARGIN
    }

    /// The time in which requests are answered once the process leaves.
    pub(crate) fn answer_timeout(&self) -> Duration {
        Limits::default().leave_timeout.max(self.drain_timeout() + ANSWER_MARGIN)
    }

    /// The origins whose pages may ask.
    pub(crate) fn origins(&self) -> Result<Origins, ConfigError> {
        Origins::parse(&self.cors_origins).map_err(|error| invalid("cors_origins", &error))
    }

    /// The proxies that are believed.
    pub(crate) fn proxies(&self) -> Result<Proxies, ConfigError> {
        let header = match self.forwarded_header.as_str() {
            "forwarded" => ForwardedHeader::Forwarded,
            "x-forwarded-for" => ForwardedHeader::XForwardedFor,
            other => {
                let detail = format!("expected forwarded or x-forwarded-for, found `{other}`");
                return Err(invalid("forwarded_header", &detail));
            }
        };
        Proxies::parse(&self.trusted_proxies, header).map_err(|text| {
            invalid("trusted_proxies", &format!("expected networks such as 10.0.0.0/8, or addresses, found `{text}`"))
        })
    }

    /// Limits by flow.
    pub(crate) fn limits(&self) -> Result<FlowLimits, ConfigError> {
        let limits = FlowLimits::parse(&self.flow_limits).map_err(|said| invalid("flow_limits", &said))?;
        match limits.bytes_least() {
            Some(quota) if quota < self.body_bytes_max as u64 => {
                let said = format!("`bytes={quota}` is less than one body may have (`body_bytes_max`)");
                Err(invalid("flow_limits", &said))
            }
            _ => Ok(limits),
        }
    }

    /// # Errors
    /// A URL of traces that would be the same for every trace; origins, networks, limits or a header that are none.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.origins()?;
        self.proxies()?;
        self.limits()?;
        self.check_commands_tenants()?;
        if (1..AUDIT_DAYS_MIN).contains(&self.keep_audit_d) {
            let said = format!("expected 0 (for ever) or at least {AUDIT_DAYS_MIN}, found {}", self.keep_audit_d);
            return Err(invalid("keep_audit_d", &said));
        }
        if self.trace_url.is_empty() || self.trace_url.contains(TRACE_ID) {
            return Ok(());
        }
        Err(invalid("trace_url", &format!("expected a URL with {TRACE_ID} in it, found `{}`", self.trace_url)))
    }
}

/// The tenants whose topics of commands are to be there, by the settings.
///
/// # Errors
/// Settings of ingest that cannot be used.
pub fn commands_tenants(sources: &Sources) -> Result<Vec<String>, ConfigError> {
    let config: Config = load(SECTION, DEFAULT, sources)?;
    config.check_commands_tenants().map(|()| config.commands_tenants)
}

fn invalid(key: &str, said: &dyn Display) -> ConfigError {
    let detail = format!("`{key}` (MEANWHILE__INGEST__{}): {said}", key.to_uppercase());
    ConfigError::Invalid { section: SECTION.to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(trace_url: &str) -> Config {
        load(SECTION, DEFAULT, &Sources::from_env([("MEANWHILE__INGEST__TRACE_URL", trace_url)])).unwrap()
    }

    #[test]
    fn a_traces_address_is_told_where_there_is_one() {
        assert_eq!(read("").url_of_trace("4bf9"), None);
        let config = read("http://localhost:16686/trace/{trace_id}");
        assert_eq!(config.url_of_trace("4bf9").unwrap(), "http://localhost:16686/trace/4bf9");
        config.check().unwrap();
    }

    #[test]
    fn an_address_without_the_traces_id_is_refused() {
        let told = read("http://localhost:16686").check().unwrap_err().to_string();
        assert!(told.contains("trace_url") && told.contains("{trace_id}"), "{told}");
    }

    #[test]
    fn lists_with_an_entry_that_is_none_are_named_with_their_key() {
        let cases = [
            ("CORS_ORIGINS", "https://a.example.com, b", "found `b`"),
            ("TRUSTED_PROXIES", "10.0.0.0/8, nobody", "found `nobody`"),
            ("FORWARDED_HEADER", "via", "found `via`"),
            ("COMMANDS_TENANTS", "acme, a/b", "found `a/b`"),
            ("COMMANDS_TENANTS", "acme, default", "`default` has a topic already"),
            ("COMMANDS_TENANTS", "acme, acme", "`acme` has a topic already"),
            ("FLOW_LIMITS", "* requests=60/1m, order requests=60", "found `order requests=60`"),
            ("KEEP_AUDIT_D", "29", "at least 30, found 29"),
            ("FLOW_LIMITS", "* bytes=524287/1m", "less than one body may have"),
        ];
        for (key, value, said) in cases {
            let variable = format!("MEANWHILE__INGEST__{key}");
            let sources = Sources::from_env([(variable.as_str(), value)]);
            let config: Config = load(SECTION, DEFAULT, &sources).unwrap();
            let told = config.check().unwrap_err().to_string();
            assert!(told.contains(&variable) && told.contains(said), "{told}");
        }
    }
}
