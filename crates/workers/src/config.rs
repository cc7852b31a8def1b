//! The settings of this service; `default.toml` beside it says what each is for.

use std::time::Duration;

use serde::Deserialize;

use crate::load::Limits;
use crate::long_calls::LongCallLimits;

/// The section's name in files and in the environment (`MEANWHILE__WORKERS__...`).
pub const SECTION: &str = "workers";
/// The compiled-in defaults, which are the reference too.
pub const DEFAULT: &str = include_str!("default.toml");

/// Settings of the workers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The queues to work on; empty: all of them.
    pub queues: Vec<String>,
    /// Slips in flight per queue.
    pub queue_slips_max: usize,
    /// Bytes in flight per queue.
    pub queue_bytes_max: usize,
    /// Results per transaction.
    pub batch_results_max: usize,
    /// Bytes per transaction.
    pub batch_bytes_max: usize,
    /// The longest time between two commits of a busy worker.
    pub commit_interval_ms_max: u64,
    /// The age at which Kafka aborts an open transaction.
    pub transaction_timeout_ms: u64,
    /// The silence after which Kafka gives our partitions to other workers.
    pub session_timeout_ms: u64,
    /// The running time after which a step leaves its partition.
    pub detach_after_ms: u64,
    /// The running time after which an attempt is told of on the topic of progress.
    pub progress_after_ms: u64,
    /// The lease: the silence after which a worker with long calls counts as lost, once two questions have proved it.
    pub lease_ms: u64,
    /// Long calls per queue.
    pub queue_long_calls_max: usize,
    /// Bytes of the slips of long calls, per queue.
    pub queue_long_calls_bytes_max: usize,
    /// The time that steps have to end after shutdown was asked for.
    pub drain_timeout_ms: u64,
    /// The interval at which finished slips are deleted from the steps topics; 0: never.
    pub trim_interval_ms: u64,
    /// Settings of HTTP steps.
    pub http: HttpConfig,
    /// The calls by which a breaker opens.
    pub breakers: BreakerConfig,
    /// The share of retries.
    pub retries: RetryConfig,
}

/// The share of retries among the calls of a downstream.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryConfig {
    /// The time that it looks back, in seconds.
    pub window_s: u32,
    /// The share in percent.
    pub share_percent: u32,
    /// Retries in that time that are made whatever their share is.
    pub calls_min: u32,
}

/// The calls by which the breaker of a downstream opens.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerConfig {
    /// False: this worker asks no breaker to open. It heeds those that are open all the same.
    pub enabled: bool,
    /// The time that it looks back, in seconds.
    pub window_s: u32,
    /// The calls in that time that are needed to judge by.
    pub calls_min: u32,
    /// The share of them that may not fail, in percent.
    pub failures_percent: u32,
}

/// Limits of the HTTP client that calls steps.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// The longest answer that is read.
    pub response_bytes_max: usize,
    /// The time that connecting may take; it is part of the step's own timeout.
    pub connect_timeout_ms: u64,
    /// Idle connections kept per host.
    pub idle_connections_max: usize,
    /// The time for which an idle connection is kept.
    pub idle_timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        let sources = service_kit::config::Sources::default();
        service_kit::config::load(SECTION, DEFAULT, &sources).expect("default.toml is compiled in, and a test reads it")
    }
}

impl Config {
    pub(crate) const fn limits(&self) -> Limits {
        Limits {
            queue_slips_max: self.queue_slips_max,
            queue_bytes_max: self.queue_bytes_max,
            batch_results_max: self.batch_results_max,
            batch_bytes_max: self.batch_bytes_max,
        }
    }

    pub(crate) const fn long_calls(&self) -> LongCallLimits {
        LongCallLimits {
            lease: Duration::from_millis(self.lease_ms),
            calls_max: self.queue_long_calls_max,
            bytes_max: self.queue_long_calls_bytes_max,
        }
    }

    pub(crate) const fn progress_after(&self) -> Duration {
        Duration::from_millis(self.progress_after_ms)
    }

    pub(crate) const fn transaction_timeout(&self) -> Duration {
        Duration::from_millis(self.transaction_timeout_ms)
    }

    pub(crate) const fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_complete_and_fit_together() {
        let config = Config::default();
        assert!(config.queues.is_empty());
        assert!(config.commit_interval_ms_max < config.transaction_timeout_ms);
        assert!(config.batch_results_max <= config.queue_slips_max);
        assert!(config.batch_bytes_max <= config.queue_bytes_max);
    }
}
