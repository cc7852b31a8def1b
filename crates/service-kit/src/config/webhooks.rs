//! The settings of webhooks: ingest refuses what may not be called, and the notifier does not call it.

use std::fmt;

use serde::Deserialize;

use super::error::ConfigError;

/// The section `[webhooks]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct WebhookSettings {
    /// Networks or addresses beside the public internet that may be called, at any port.
    pub allow_networks: Vec<String>,
    /// Ports that may be called at any host, beside 80, 443 and 8443.
    pub allow_ports: Vec<String>,
}

impl WebhookSettings {
    /// The error of a network or a port that is none.
    pub fn refused(&self, found: &dyn fmt::Display) -> ConfigError {
        let said = format!("expected networks such as 10.1.0.0/16, or addresses, and ports, found `{found}`");
        let variables = "`allow_networks` (MEANWHILE__WEBHOOKS__ALLOW_NETWORKS) and `allow_ports`";
        ConfigError::Invalid { section: "webhooks".to_owned(), detail: format!("{variables}: {said}") }
    }
}
