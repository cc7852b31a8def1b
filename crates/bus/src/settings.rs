//! How to reach Kafka and the registry: one value, handed to everything in this crate.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

/// The largest request that our clients send or accept, in bytes: the dead letters' topic limit (1 MiB + 64 KiB) and
/// room for frames. Each topic's own limit is the broker's to hold.
pub(crate) const MESSAGE_BYTES_MAX: u32 = 2 * 1024 * 1024;

/// What stands behind the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BrokerKind {
    /// Apache Kafka, or what speaks like it.
    #[default]
    Kafka,
    /// librdkafka's mock broker in this process (`mock::Broker`): no groups, no isolation, nothing kept.
    InProcess,
}

/// How to reach Kafka and the schema registry.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The base URL of a Confluent-compatible schema registry.
    pub registry_url: String,
    /// Kafka, or the in-process broker.
    pub kind: BrokerKind,
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
            .field("registry_url", &self.registry_url)
            .field("kind", &self.kind)
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
            kind: BrokerKind::Kafka,
            client_id: "meanwhile".to_owned(),
            properties: BTreeMap::new(),
        }
    }

    /// Asks librdkafka about each of the operator's properties, before any client is made.
    ///
    /// # Errors
    /// The first that it refuses: the property's name, and why.
    pub fn check_properties(&self) -> Result<(), (&str, String)> {
        for (name, value) in &self.properties {
            let mut alone = ClientConfig::new();
            alone.set(name, value).create_native_config().map_err(|error| match error {
                KafkaError::ClientConfig(_, reason, ..) => (name.as_str(), reason),
                other => (name.as_str(), other.to_string()),
            })?;
        }
        Ok(())
    }

    /// What every client has in common, with `own` on top and the operator's properties above all.
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
            .set("topic.metadata.refresh.interval.ms", "5000");
        for (name, value) in own {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
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

    fn refused(name: &str, value: &str) -> Option<(String, String)> {
        let properties =
            BTreeMap::from([("linger.ms".to_owned(), "5".to_owned()), (name.to_owned(), value.to_owned())]);
        let settings = Settings { properties, ..Settings::new("kafka:9092", "http://registry:8081") };
        settings.check_properties().err().map(|(name, reason)| (name.to_owned(), reason))
    }

    #[test]
    fn a_property_that_librdkafka_refuses_is_named_with_the_reason() {
        assert_eq!(refused("security.protocol", "plaintext"), None);
        let (name, reason) = refused("security.protocol", "tls").unwrap();
        assert_eq!(name, "security.protocol");
        assert!(reason.contains("Invalid value \"tls\""), "{reason}");
        let (name, reason) = refused("sekurity.protocol", "ssl").unwrap();
        assert_eq!(name, "sekurity.protocol");
        assert!(reason.contains("No such configuration property"), "{reason}");
    }
}
