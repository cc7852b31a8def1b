//! Running roles: settings in, services out.

use std::process::ExitCode;

use anyhow::Context;
use events::topic::Topics;
use service_kit::config::{ConfigError, Shared, Sources, describe, load};
use service_kit::health::{self, Readiness};
use service_kit::identity::{Clock, Ids};
use service_kit::tasks::Tasks;
use service_kit::telemetry::{self, Metrics};
use service_kit::{CancellationToken, shutdown};
use setup::Target;
use workers::Workers;

/// One of the five services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Ingest,
    Relay,
    Workers,
    Orchestrator,
    Notifier,
}

impl Role {
    pub(crate) const ALL: [Self; 5] = [Self::Ingest, Self::Relay, Self::Workers, Self::Orchestrator, Self::Notifier];

    const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Relay => "relay",
            Self::Workers => "workers",
            Self::Orchestrator => "orchestrator",
            Self::Notifier => "notifier",
        }
    }

    /// Where a role listens by itself: the API, or health and metrics.
    pub(crate) const fn listen(self) -> &'static str {
        match self {
            Self::Ingest => "127.0.0.1:8080",
            Self::Relay => "127.0.0.1:8091",
            Self::Workers => "127.0.0.1:8092",
            Self::Orchestrator => "127.0.0.1:8093",
            Self::Notifier => "127.0.0.1:8094",
        }
    }
}

/// The settings that every role is built from.
pub(crate) struct Base {
    pub(crate) shared: Shared,
    pub(crate) bus: bus::Settings,
    pub(crate) topics: Topics,
}

impl Base {
    /// Reads the settings; what is missing is named.
    pub(crate) fn load(sources: &Sources) -> anyhow::Result<Self> {
        let shared = Shared::load(sources)?;
        let bus = bus_settings(&shared)?;
        Ok(Self { bus, topics: Topics::new(&shared.topics_prefix), shared })
    }

    /// The servers to set up.
    pub(crate) fn target(&self) -> Result<Target, ConfigError> {
        Ok(Target { bus: self.bus.clone(), topics: self.topics.clone(), database_url: self.database_url()? })
    }

    /// Asked for where it is used: workers have no business with Postgres.
    pub(crate) fn database_url(&self) -> Result<String, ConfigError> {
        self.shared.database_url().map(str::to_owned)
    }
}

/// The settings for Kafka and the registry.
pub(crate) fn bus_settings(shared: &Shared) -> anyhow::Result<bus::Settings> {
    let settings = bus::Settings {
        brokers: shared.kafka_brokers()?.to_owned(),
        registry_url: shared.registry_url()?.to_owned(),
        in_process: None,
        client_id: format!("meanwhile-{}", shared.instance),
        properties: shared.kafka_properties.clone(),
    };
    settings.check_properties().map_err(|(name, reason)| {
        let variable = format!("MEANWHILE__KAFKA__{}", name.replace('.', "_").to_ascii_uppercase());
        let detail = format!("`{name}` ({variable}) is librdkafka's, which says: {reason}");
        ConfigError::Invalid { section: "kafka".to_owned(), detail }
    })?;
    Ok(settings)
}

/// Runs these roles in this process until a signal.
pub(crate) async fn run(roles: &[Role], workers: Workers, sources: &Sources) -> anyhow::Result<ExitCode> {
    let base = Base::load(sources)?;
    let Shared { log, traces, instance, .. } = &base.shared;
    let export = telemetry::init_with_traces(log, traces, &service(roles), instance)?;
    let shutdown = shutdown::on_signals().context("listening to signals")?;
    let outcome = serve(roles, workers, base, sources, shutdown).await;
    export.finish().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// The name of a process in traces: `meanwhile-<role>`, or `meanwhile` where it has several.
pub(crate) fn service(roles: &[Role]) -> String {
    match roles {
        [role] => format!("meanwhile-{}", role.name()),
        _ => "meanwhile".to_owned(),
    }
}

/// Runs these roles until shutdown: one listener for the API (if ingest is among them), health and metrics.
pub(crate) async fn serve(
    roles: &[Role],
    workers: Workers,
    base: Base,
    sources: &Sources,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Some(first) = roles.first() else { return Ok(()) };
    let readiness = Readiness::new(Clock::system(), first.name());
    let metrics = Metrics::install()?;
    let listener = health::bind(base.shared.listen_or(first.listen())).await?;
    let address = listener.local_addr().context("the listener's address")?;
    let router = health::router(readiness.clone(), metrics.clone());
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn("metrics upkeep", metrics.upkeep(shutdown.clone()));
    let mut listener = Some(listener);
    for role in roles {
        let readiness = readiness.for_role(role.name());
        let shutdown = shutdown.clone();
        match role {
            Role::Ingest => {
                let Some(listener) = listener.take() else { continue };
                let settings = ingest_settings(&base, sources)?;
                tasks.spawn(role.name(), ingest::run(settings, listener, router.clone(), readiness, shutdown));
            }
            Role::Relay => {
                let settings = relay_settings(&base, sources)?;
                let (clock, ids) = (Clock::system(), Ids::system());
                tasks.spawn(role.name(), relay::run(settings, readiness, clock, ids, shutdown));
            }
            Role::Workers => {
                let settings = workers_settings(&base, sources)?;
                tasks.spawn(role.name(), workers.clone().run(settings, readiness, shutdown));
            }
            Role::Orchestrator => {
                let settings = orchestrator_settings(&base, sources)?;
                tasks.spawn(role.name(), orchestrator::run(settings, readiness, shutdown));
            }
            Role::Notifier => {
                tasks.spawn(role.name(), notifier::run(notifier_settings(&base, sources)?, readiness, shutdown));
            }
        }
        tracing::info!(role = role.name(), %address, instance = base.shared.instance, "role started");
    }
    if let Some(listener) = listener {
        tasks.spawn("health", health::serve(listener, router, shutdown));
    }
    tasks.join().await
}

fn ingest_settings(base: &Base, sources: &Sources) -> anyhow::Result<ingest::Settings> {
    Ok(ingest::Settings {
        bus: base.bus.clone(),
        topics: base.topics.clone(),
        database_url: base.database_url()?,
        public_url: base.shared.public_url.clone(),
        config: load(ingest::config::SECTION, ingest::config::DEFAULT, sources)?,
    })
}

fn relay_settings(base: &Base, sources: &Sources) -> anyhow::Result<relay::Settings> {
    Ok(relay::Settings {
        bus: base.bus.clone(),
        topics: base.topics.clone(),
        database_url: base.database_url()?,
        seams: relay::seam::Seams::default(),
        config: load(relay::config::SECTION, relay::config::DEFAULT, sources)?,
    })
}

fn workers_settings(base: &Base, sources: &Sources) -> anyhow::Result<workers::Settings> {
    Ok(workers::Settings {
        bus: base.bus.clone(),
        topics: base.topics.clone(),
        instance: base.shared.instance.clone(),
        env: workers::config::flow_environment(environment()),
        config: load(workers::config::SECTION, workers::config::DEFAULT, sources)?,
    })
}

/// The process's environment, as far as it is text.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn orchestrator_settings(base: &Base, sources: &Sources) -> anyhow::Result<orchestrator::Settings> {
    Ok(orchestrator::Settings {
        bus: base.bus.clone(),
        topics: base.topics.clone(),
        database_url: base.database_url()?,
        config: load(orchestrator::config::SECTION, orchestrator::config::DEFAULT, sources)?,
    })
}

fn notifier_settings(base: &Base, sources: &Sources) -> anyhow::Result<notifier::Settings> {
    Ok(notifier::Settings {
        bus: base.bus.clone(),
        topics: base.topics.clone(),
        database_url: base.database_url()?,
        config: load(notifier::config::SECTION, notifier::config::DEFAULT, sources)?,
    })
}

/// Every section with its defaults, for `meanwhile config` and for refusing unknown keys.
const SECTIONS: [(&str, &str); 5] = [
    (ingest::config::SECTION, ingest::config::DEFAULT),
    (relay::config::SECTION, relay::config::DEFAULT),
    (workers::config::SECTION, workers::config::DEFAULT),
    (orchestrator::config::SECTION, orchestrator::config::DEFAULT),
    (notifier::config::SECTION, notifier::config::DEFAULT),
];

/// `meanwhile config`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) fn show_config(sources: &Sources) -> anyhow::Result<ExitCode> {
    let settings = describe(sources, &SECTIONS)?;
    let width = |pick: fn(&service_kit::config::Setting) -> &str| {
        settings.iter().map(|setting| pick(setting).chars().count()).max().unwrap_or(0).min(60)
    };
    let (keys, values) = (width(|setting| &setting.key), width(|setting| &setting.value));
    for setting in &settings {
        println!("{:keys$}  {:values$}  {}", setting.key, setting.value, setting.source);
    }
    Ok(ExitCode::SUCCESS)
}
