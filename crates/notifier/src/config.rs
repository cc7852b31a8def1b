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
}
