//! The settings of this service; `default.toml` beside it says what each is for.

use serde::Deserialize;

/// The section's name in files and in the environment (`MEANWHILE__NOTIFIER__...`).
pub const SECTION: &str = "notifier";
/// The compiled-in defaults, which are the reference too.
pub const DEFAULT: &str = include_str!("default.toml");

/// The service's settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Records taken into one transaction, at most.
    pub batch_records_max: usize,
    /// Database connections.
    pub connections_max: u32,
    /// Deliveries under way at once, at most.
    pub deliveries_max: u32,
    /// The same to one endpoint.
    pub deliveries_per_endpoint_max: u32,
    /// A receiver's time for its answer, in milliseconds.
    pub timeout_ms: u64,
    /// The pauses after failures, in seconds.
    pub schedule_s: Vec<u64>,
    /// The longest pause that a receiver may ask for, in seconds.
    pub retry_after_max_s: u64,
    /// The time without a success after which an endpoint is disabled, in hours.
    pub disable_after_h: u32,
    /// The time for which deliveries are kept, in days.
    pub keep_deliveries_d: u32,
    /// The longest time without a look for what is due, in milliseconds.
    pub check_ms: u64,
    /// The interval at which deliveries are counted, in milliseconds; 0: never.
    pub figures_interval_ms: u64,
}
