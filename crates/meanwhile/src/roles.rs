//! Running roles: settings in, services out.

use std::process::ExitCode;

use process::{Base, Host};
use service_kit::CancellationToken;
use service_kit::config::{ConfigError, Sources, describe};
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

    /// The address at which a role listens by default: for the API, or for health and metrics.
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

/// The servers to set up.
pub(crate) fn target(base: &Base) -> Result<Target, ConfigError> {
    Ok(Target { bus: base.bus.clone(), topics: base.topics.clone(), database_url: base.database_url()? })
}

/// Runs these roles in this process until a signal.
pub(crate) async fn run(roles: &[Role], workers: Workers, sources: &Sources) -> anyhow::Result<ExitCode> {
    let base = Base::load(sources)?;
    process::run(&service(roles), &base.shared, |shutdown| serve(roles, workers, &base, sources, shutdown)).await?;
    Ok(ExitCode::SUCCESS)
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
    base: &Base,
    sources: &Sources,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Some(first) = roles.first() else { return Ok(()) };
    let alone = roles.len() == 1;
    let start = |host: &mut Host| roles.iter().try_for_each(|role| role.start(alone, &workers, (base, sources), host));
    process::serve(base, first.name(), first.listen(), shutdown, start).await
}

impl Role {
    /// `alone`: it has the process for itself.
    fn start(
        self,
        alone: bool,
        workers: &Workers,
        (base, sources): (&Base, &Sources),
        host: &mut Host,
    ) -> anyhow::Result<()> {
        let name = self.name();
        let (process, shutdown) = (host.process.for_role(name), host.tasks.shutdown().clone());
        match self {
            Self::Ingest => {
                let Some(door) = host.door.take() else { return Ok(()) };
                let mut settings = ingest::Settings::load(base, sources)?;
                if !alone {
                    // Nobody balances requests to a process that does everything, and its other roles leave at once.
                    settings.config.leave_after_ms = 0;
                    settings.config.drain_timeout_ms = 0;
                }
                host.tasks.leave_within(settings.config.leave_timeout());
                host.tasks.spawn(name, ingest::run(settings, door, process, shutdown));
            }
            Self::Relay => {
                host.tasks.spawn(name, relay::run(relay::Settings::load(base, sources)?, process, shutdown));
            }
            Self::Workers => {
                let settings = workers::Settings::load(base, sources)?;
                host.tasks.spawn(name, workers.clone().run(settings, process, shutdown));
            }
            Self::Orchestrator => {
                let settings = base.service(orchestrator::config::SECTION, orchestrator::config::DEFAULT, sources)?;
                host.tasks.spawn(name, orchestrator::run(settings, process, shutdown));
            }
            Self::Notifier => {
                host.tasks.spawn(name, notifier::run(notifier::Settings::load(base, sources)?, process, shutdown));
            }
        }
        tracing::info!(role = name, address = %host.address, instance = base.shared.instance, "role started");
        Ok(())
    }
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
