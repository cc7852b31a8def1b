//! The settings that every service is built from.

use bus::{BadProperty, BasicAuth, RegistryAccess};
use events::topic::Topics;
use serde::de::DeserializeOwned;
use service_kit::config::{ConfigError, RegistrySettings, Shared, Sources, load};

/// The settings of a service that goes from Kafka to Postgres.
#[derive(Debug, Clone)]
pub struct ServiceSettings<C> {
    /// Kafka and the registry.
    pub bus: bus::Settings,
    /// The names of topics.
    pub topics: Topics,
    /// Postgres.
    pub database_url: String,
    /// The service's own settings.
    pub config: C,
}

#[derive(Debug, Clone)]
pub struct Base {
    pub shared: Shared,
    pub bus: bus::Settings,
    pub topics: Topics,
}

impl Base {
    /// Reads the settings.
    ///
    /// # Errors
    /// The first setting that is missing or cannot be used, including librdkafka's own properties.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::new(Shared::load(sources)?)
    }

    /// Takes settings that are read already.
    ///
    /// # Errors
    /// As [`Base::load`].
    pub fn new(shared: Shared) -> Result<Self, ConfigError> {
        let bus = bus_settings(&shared)?;
        Ok(Self { bus, topics: Topics::new(&shared.topics_prefix), shared })
    }

    /// What a service needs that goes from Kafka to Postgres (rule 3). `defaults`: its section of the configuration, as
    /// it is without any setting.
    ///
    /// # Errors
    /// The first setting that is missing or cannot be used.
    pub fn service<C: DeserializeOwned>(
        &self,
        section: &str,
        defaults: &str,
        sources: &Sources,
    ) -> Result<ServiceSettings<C>, ConfigError> {
        Ok(ServiceSettings {
            bus: self.bus.clone(),
            topics: self.topics.clone(),
            database_url: self.database_url()?,
            config: load(section, defaults, sources)?,
        })
    }

    /// Asked for by the services that use Postgres: workers do not.
    ///
    /// # Errors
    /// It is not set.
    pub fn database_url(&self) -> Result<String, ConfigError> {
        self.shared.database_url().map(str::to_owned)
    }
}

fn bus_settings(shared: &Shared) -> Result<bus::Settings, ConfigError> {
    let settings = bus::Settings {
        brokers: shared.kafka_brokers()?.to_owned(),
        registry_url: shared.registry_url()?.to_owned(),
        registry: registry_access(&shared.registry),
        in_process: None,
        // The groups of clients that need one only for librdkafka begin with it, as our own do with the prefix.
        client_id: format!("{}-{}", shared.topics_prefix, shared.instance),
        properties: shared.kafka_properties.clone(),
    };
    settings.check_properties().map_err(|BadProperty { name, reason }| {
        let variable = format!("MEANWHILE__KAFKA__{}", name.replace('.', "_").to_ascii_uppercase());
        let detail = format!("`{name}` ({variable}) {reason}");
        ConfigError::Invalid { section: "kafka".to_owned(), detail }
    })?;
    Ok(settings)
}

/// How to reach the registry.
pub fn registry_access(settings: &RegistrySettings) -> RegistryAccess {
    let RegistrySettings { authorities, user, password } = settings.clone();
    RegistryAccess {
        auth: (!user.is_empty()).then_some(BasicAuth { user, password }),
        authorities: (!authorities.is_empty()).then(|| authorities.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_that_librdkafka_refuses_is_named_with_its_variable() {
        let sources = Sources::from_env([
            ("KAFKA_BROKERS", "localhost:9092"),
            ("SCHEMA_REGISTRY_URL", "http://localhost:8081"),
            ("MEANWHILE__KAFKA__SECURITY_PROTOCOL", "tls"),
        ]);
        let error = Base::load(&sources).unwrap_err().to_string();
        assert!(error.contains("MEANWHILE__KAFKA__SECURITY_PROTOCOL") && error.contains("Invalid value"), "{error}");
    }
}
