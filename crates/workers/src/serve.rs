//! A worker binary's whole `main`: settings from the environment, logs, health and metrics, signals.

use process::Base;
use service_kit::config::Sources;

use crate::{Settings, Workers};

/// The address of health and metrics, unless MEANWHILE_LISTEN is set.
const LISTEN: &str = "127.0.0.1:8092";

impl Workers {
    /// Runs as a process of its own, as `meanwhile workers` does: until SIGTERM or SIGINT, by the settings of the
    /// environment (KAFKA_BROKERS, SCHEMA_REGISTRY_URL, MEANWHILE_INSTANCE, MEANWHILE_CONFIG, ...).
    ///
    /// # Errors
    /// A setting is missing or cannot be used.
    pub async fn serve(self) -> anyhow::Result<()> {
        const ROLE: &str = "workers";
        let sources = Sources::of_process()?;
        let base = Base::load(&sources)?;
        let settings = Settings::load(&base, &sources)?;
        let start = |host: &mut process::Host| {
            let (process, shutdown) = (host.process.for_role(ROLE), host.tasks.shutdown().clone());
            host.tasks.spawn(ROLE, self.run(settings, process, shutdown));
            Ok(())
        };
        process::run("meanwhile-workers", &base.shared, |shutdown| process::serve(&base, ROLE, LISTEN, shutdown, start))
            .await
    }
}
