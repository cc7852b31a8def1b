//! The addresses of Kafka and the registry, and how to connect: one value, handed to everything in this crate.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use events::topic::Topics;
use rdkafka::ClientConfig;

use crate::in_process::{DevCapacity, InProcess};
use crate::registry_access::{RegistryAccess, without_login};
use crate::security::{self, BadProperty};

/// The largest request that our clients send or accept, in bytes: the limit of `waits` (2 MiB + 64 KiB) and room for
/// frames. Each topic's own limit is the broker's to hold.
pub(crate) const MESSAGE_BYTES_MAX: u32 = 3 * 1024 * 1024;

/// Kafka and the schema registry, and how to connect to them.
#[derive(Clone, Default)]
pub struct Settings {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The base URL of a Confluent-compatible schema registry.
    pub registry_url: String,
    /// Who asks the registry, and whom we trust to be it.
    pub registry: RegistryAccess,
    /// The in-process broker, where that stands behind `brokers`; none: Apache Kafka, or what speaks like it.
    pub in_process: Option<Arc<InProcess>>,
    /// Shown in the brokers' logs and quotas.
    pub client_id: String,
    /// Further librdkafka properties (SASL, TLS); they win over everything set here.
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("Settings")
            .field("brokers", &self.brokers)
            .field("registry_url", &without_login(&self.registry_url).0)
            .field("registry", &self.registry)
            .field("in_process", &self.in_process.is_some())
            .field("client_id", &self.client_id)
            .field("properties (values not shown)", &properties)
            .finish()
    }
}

impl Settings {
    /// A real Kafka and registry, without further properties.
    pub fn new(brokers: impl Into<String>, registry_url: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            registry_url: registry_url.into(),
            registry: RegistryAccess::default(),
            in_process: None,
            client_id: "meanwhile".to_owned(),
            properties: BTreeMap::new(),
        }
    }

    /// The in-process broker instead, and no registry.
    pub fn of_in_process(in_process: Arc<InProcess>) -> Self {
        Self { in_process: Some(Arc::clone(&in_process)), ..Self::new(in_process.address(), "") }
    }

    /// A handle that tells the in-process broker's room. None with a real Kafka, which always has room.
    pub fn dev_capacity(&self, topics: &Topics) -> Option<DevCapacity> {
        self.in_process.as_ref().map(|in_process| DevCapacity::new(Arc::clone(in_process), topics.clone()))
    }

    /// Looks at the operator's properties before any client is made.
    ///
    /// # Errors
    /// The first that librdkafka refuses, or that lacks another one.
    pub fn check_properties(&self) -> Result<(), BadProperty> {
        security::check(&self.brokers, &security::completed(&self.properties))
    }

    /// The properties that every client has in common, with `own` on top and the operator's above all.
    pub(crate) fn client_config(&self, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("allow.auto.create.topics", "false")
            .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
            .set("log.connection.close", "false")
            .set("socket.nagle.disable", "true")
            // Back within a second after a restart of the broker; the default may wait ten.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "5000")
            // Otherwise librdkafka 2.12 takes all brokers for new ones at each attempt to connect while none answers,
            // dozens of times a second; among the threads that end then it crashes now and then.
            .set("metadata.recovery.strategy", "none");
        for (name, value) in own {
            config.set(*name, *value);
        }
        for (name, value) in security::completed(&self.properties) {
            config.set(name, value);
        }
        config
    }

    /// Producers: acks=all, idempotent, and Java's partitioner (librdkafka's own default differs).
    pub(crate) fn producer_config(&self, own: &[(&str, &str)]) -> ClientConfig {
        let mut all = vec![
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("partitioner", "murmur2_random"),
            ("linger.ms", "1"),
            ("queue.buffering.max.kbytes", "32768"),
            // A topic that is not there: say so soon (default 30 s).
            ("topic.metadata.propagation.max.ms", "5000"),
        ];
        all.extend_from_slice(own);
        self.client_config(&all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_kafka_always_has_room() {
        assert!(Settings::new("kafka:9092", "").dev_capacity(&Topics::new("t")).is_none());
    }
}
