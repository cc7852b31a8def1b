//! The settings of this service; `default.toml` beside it says what each is for.

use std::time::Duration;

use bus::DevCapacity;
use serde::Deserialize;

/// A transaction of `meanwhile dev`: small beside what its broker keeps of a partition, 5 MiB.
const TRANSACTION_BYTES_MAX_IN_PROCESS: usize = 256 * 1024;

/// The section's name in files and in the environment (`MEANWHILE__RELAY__...`).
pub const SECTION: &str = "relay";
/// The compiled-in defaults, which are the reference too.
pub const DEFAULT: &str = include_str!("default.toml");

/// The service's settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Rows in one Kafka transaction.
    pub transaction_rows_max: usize,
    /// Bytes in one Kafka transaction.
    pub transaction_bytes_max: usize,
    /// The age at which Kafka ends an open transaction.
    pub transaction_timeout_ms: u64,
    /// The longest interval between the begins of two transactions under load.
    pub transaction_interval_ms_max: u64,
    /// Rows read ahead of Kafka.
    pub buffer_rows_max: usize,
    /// Bytes read ahead of Kafka.
    pub buffer_bytes_max: usize,
    /// The silence after which Postgres frees a relay's slot.
    pub wal_sender_timeout_ms: u64,
    /// The interval of signs of life to Postgres.
    pub status_interval_ms: u64,
    /// The interval at which a standby looks at the slot.
    pub standby_interval_ms: u64,
    /// The interval of updates of the position while no rows come.
    pub idle_position_interval_ms: u64,
    /// The wait for a missing topic.
    pub topic_wait_ms: u64,
    /// Hourly partitions to make ahead.
    pub partitions_ahead_h: u32,
    /// Hours for which delivered rows are kept.
    pub keep_h: u32,
    /// The interval of rounds that make and drop partitions.
    pub partitions_interval_s: u64,
    /// The interval of measurements of age, lag and Kafka's reach.
    pub monitor_interval_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        let sources = service_kit::config::Sources::default();
        service_kit::config::load(SECTION, DEFAULT, &sources).expect("default.toml is compiled in, and a test reads it")
    }
}

impl Config {
    /// These settings with smaller transactions, where the in-process broker has little room.
    pub(crate) fn within(&self, capacity: Option<&DevCapacity>) -> Self {
        let mut config = self.clone();
        if capacity.is_some() {
            config.transaction_bytes_max = config.transaction_bytes_max.min(TRANSACTION_BYTES_MAX_IN_PROCESS);
        }
        config
    }

    pub(crate) const fn transaction_timeout(&self) -> Duration {
        Duration::from_millis(self.transaction_timeout_ms)
    }

    pub(crate) const fn transaction_interval_max(&self) -> Duration {
        Duration::from_millis(self.transaction_interval_ms_max)
    }

    pub(crate) const fn topic_wait(&self) -> Duration {
        Duration::from_millis(self.topic_wait_ms)
    }

    pub(crate) const fn idle_position_interval(&self) -> Duration {
        Duration::from_millis(self.idle_position_interval_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_complete_and_fit_together() {
        let config = Config::default();
        assert!(config.status_interval_ms * 2 < config.wal_sender_timeout_ms);
        assert!(config.transaction_bytes_max <= config.buffer_bytes_max);
        assert!(config.transaction_rows_max <= config.buffer_rows_max);
    }
}
