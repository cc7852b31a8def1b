//! The settings of this service; `default.toml` beside it says what each is for.

use serde::Deserialize;

/// The section's name in files and in the environment (`MEANWHILE__INGEST__...`).
pub const SECTION: &str = "ingest";
/// The compiled-in defaults, which are the reference too.
pub const DEFAULT: &str = include_str!("default.toml");

/// What can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Bodies over this are answered with 413, in bytes.
    pub body_bytes_max: usize,
    /// How long idempotency keys are remembered, in hours.
    pub idempotency_retention_h: u32,
    /// Whether a submit over HTTP must carry an `Idempotency-Key`.
    pub idempotency_key_required: bool,
    /// What `Retry-After` says on a 202, in seconds.
    pub retry_after_s: u64,
    /// Jobs whose freshest state is kept in memory.
    pub recent_jobs_max: usize,
    /// Database connections.
    pub connections_max: u32,
    /// The tenant of requests without credentials and of `meanwhile.commands`.
    pub default_tenant: String,
}
