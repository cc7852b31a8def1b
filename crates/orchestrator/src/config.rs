//! The settings of this service; `default.toml` beside it says what each is for.

use serde::Deserialize;

pub use crate::breaker::BreakerConfig;

/// The section's name in files and in the environment (`MEANWHILE__ORCHESTRATOR__...`).
pub const SECTION: &str = "orchestrator";
/// The compiled-in defaults, which are the reference too.
pub const DEFAULT: &str = include_str!("default.toml");

/// The service's settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Records taken into one transaction, at most.
    pub batch_records_max: usize,
    /// Holds released in one statement, at most.
    pub release_batch_max: u32,
    /// The release loop's longest sleep, in milliseconds.
    pub release_check_ms: u64,
    /// The interval at which queues and holds are counted for the metrics, in milliseconds; 0: never.
    pub figures_interval_ms: u64,
    /// The time without progress after which a job that rests in no hold is stuck, in milliseconds; 0: never.
    pub stuck_after_ms: u64,
    /// The time for which a job's history is kept after its end, in days; 0: for ever.
    pub keep_jobs_d: u32,
    /// The time for which records of `meanwhile.waits` are kept after they were taken in, in hours.
    pub keep_waits_h: u32,
    /// Database connections.
    pub connections_max: u32,
    /// Breakers of downstreams.
    pub breakers: BreakerConfig,
}
