//! A worker binary's whole `main`: settings from the environment, logs, health and metrics, signals.

use anyhow::Context;
use events::topic::Topics;
use service_kit::config::{Shared, Sources, load};
use service_kit::tasks::Tasks;
use service_kit::telemetry::{self, Metrics};
use service_kit::{Clock, Readiness, health, shutdown};

use crate::{Settings, Workers, config};

/// Where health and metrics are, unless MEANWHILE_LISTEN says otherwise.
const LISTEN: &str = "127.0.0.1:8092";

impl Workers {
    /// Runs as a process of its own, as `meanwhile workers` does: until SIGTERM or SIGINT, by the settings of the
    /// environment (KAFKA_BROKERS, SCHEMA_REGISTRY_URL, MEANWHILE_INSTANCE, MEANWHILE_CONFIG, ...).
    ///
    /// # Errors
    /// A setting is missing or cannot be used.
    pub async fn serve(self) -> anyhow::Result<()> {
        let sources = Sources::of_process()?;
        let shared = Shared::load(&sources)?;
        let export = telemetry::init_with_traces(&shared.log, &shared.traces, "meanwhile-workers", &shared.instance)?;
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let settings = Settings {
            bus: bus::Settings {
                brokers: shared.kafka_brokers()?.to_owned(),
                registry_url: shared.registry_url()?.to_owned(),
                in_process: None,
                client_id: format!("meanwhile-{}", shared.instance),
                properties: shared.kafka_properties.clone(),
            },
            topics: Topics::new(&shared.topics_prefix),
            instance: shared.instance.clone(),
            env: config::flow_environment(variables),
            config: load(config::SECTION, config::DEFAULT, &sources)?,
        };
        let shutdown = shutdown::on_signals().context("listening to signals")?;
        let readiness = Readiness::new(Clock::system(), "workers");
        let metrics = Metrics::install()?;
        let listener = health::bind(shared.listen_or(LISTEN)).await?;
        let router = health::router(readiness.clone(), metrics.clone());
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn("metrics upkeep", metrics.upkeep(shutdown.clone()));
        tasks.spawn("health", health::serve(listener, router, shutdown.clone()));
        tasks.spawn("workers", self.run(settings, readiness, shutdown));
        let outcome = tasks.join().await;
        export.finish().await;
        outcome
    }
}
