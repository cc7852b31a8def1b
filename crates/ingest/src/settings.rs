//! The settings of the service, from those of the process.

use events::topic::Topics;
use flow::callback::Secrets;
use flow::decide::Env;
use outbound::Allowed;
use process::Base;
use service_kit::config::{AuthSettings, ConfigError, DocumentSettings, Sources, load};
use web::problem::PublicUrl;

use crate::config;

/// The settings of the service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Kafka and the registry.
    pub bus: bus::Settings,
    /// The names of topics.
    pub topics: Topics,
    /// Postgres.
    pub database_url: String,
    /// The address at which callers reach the API; empty: the host that each request names.
    pub public_url: PublicUrl,
    /// The secrets by which the addresses of callbacks are known again; none: no callback is.
    pub callback_secrets: Secrets,
    /// `env.*` of flows' `upstream`.
    pub env: Env,
    /// Addresses beside the public internet that tenants may have called.
    pub allowed: Allowed,
    /// Whom the API answers.
    pub auth: AuthSettings,
    /// The store of documents.
    pub documents: DocumentSettings,
    /// The service's own settings.
    pub config: config::Config,
}

impl Settings {
    /// # Errors
    /// The first setting that is missing or cannot be used.
    pub fn load(base: &Base, sources: &Sources) -> Result<Self, ConfigError> {
        Ok(Self {
            bus: base.bus.clone(),
            topics: base.topics.clone(),
            database_url: base.database_url()?,
            public_url: PublicUrl::new(&base.shared.public_url).with_tls(base.shared.tls.is_on()),
            callback_secrets: callback_secrets(base)?,
            env: Env::of_process(sources.variables()),
            allowed: Allowed::load(&base.shared.webhooks)?,
            auth: base.shared.auth.clone(),
            documents: base.shared.documents.clone(),
            config: load(config::SECTION, config::DEFAULT, sources)?,
        })
    }
}

fn callback_secrets(base: &Base) -> Result<Secrets, ConfigError> {
    let settings = &base.shared.callbacks;
    Secrets::new(settings.secrets.clone()).map_err(|error| settings.refused(&error))
}
