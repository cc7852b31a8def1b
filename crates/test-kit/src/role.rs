//! The real binary, one process per role.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::OnceCell;

use crate::clock::WallClock;
use crate::http::http_client;
use crate::port::Port;
use crate::process::{Launch, Process};
use crate::tool::{repository, run, target_folder};

/// A role is ready within a second or two on a quiet machine.
const READY_WITHIN: Duration = Duration::from_secs(300);

/// A role of the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// HTTP and commands in, answers out.
    Ingest,
    /// Outbox to Kafka.
    Relay,
    /// Run steps.
    Workers,
    /// Time and people.
    Orchestrator,
    /// Webhooks.
    Notifier,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Ingest, Self::Relay, Self::Workers, Self::Orchestrator, Self::Notifier];

    /// The subcommand.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Relay => "relay",
            Self::Workers => "workers",
            Self::Orchestrator => "orchestrator",
            Self::Notifier => "notifier",
        }
    }
}

/// One role as a process of its own, on a port of its own. It goes when dropped.
#[derive(Debug)]
pub struct MeanwhileProcess {
    role: Role,
    process: Process,
    port: Port,
    clock: Option<WallClock>,
}

impl MeanwhileProcess {
    /// Starts it; does not wait. `instance` tells it from others of its role and stays over restarts.
    pub async fn start(role: Role, instance: &str, variables: &[(String, String)]) -> Result<Self> {
        Self::start_program(binary().await?, role, instance, variables)
    }

    /// The same with another build of the program.
    pub fn start_program(program: PathBuf, role: Role, instance: &str, variables: &[(String, String)]) -> Result<Self> {
        let port = Port::take()?;
        let listen = format!("127.0.0.1:{}", port.number());
        let mut launch = Launch::new(instance, program).arg(role.as_str());
        launch = launch.env("MEANWHILE_LISTEN", listen).env("MEANWHILE_INSTANCE", instance);
        for (name, value) in variables {
            launch = launch.env(name, value);
        }
        Ok(Self { role, process: Process::start(launch)?, port, clock: None })
    }

    /// The same with a wall clock that a test moves.
    pub(crate) fn with_clock(mut self, clock: WallClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Its wall clock.
    ///
    /// # Panics
    /// When it has none of its own.
    pub fn clock(&self) -> &WallClock {
        self.clock.as_ref().expect("clocks() was asked for")
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// `http://127.0.0.1:PORT`: the API of ingest; health and metrics of each role.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// The process itself: kill it, pause it, read its log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until `/readyz` says so.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let (client, url) = (http_client(), format!("{}/readyz", self.url()));
        let ready = async || {
            let answer = client.get(&url).timeout(Duration::from_secs(5)).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        };
        self.process.wait_until(READY_WITHIN, "/readyz says ready", ready).await
    }

    /// Starts it again, after a kill or not, on the same port and under the same instance name; does not wait.
    pub fn restart(&mut self) -> Result<()> {
        self.process.restart()
    }

    /// Asks it to end and waits for that.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.process.terminate(within).await
    }

    /// The value of a metric: the sum over all lines of that name whose labels contain `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let text =
            http_client().get(format!("{}/metrics", self.url())).send().await.context("/metrics")?.text().await?;
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, found_labels) = series.split_once('{').unwrap_or((series, ""));
            (found == name && found_labels.contains(labels)).then(|| value.parse::<f64>().ok())?
        });
        Ok(values.sum())
    }
}

/// Runs a subcommand of the binary to its end and returns its standard output.
pub async fn meanwhile(arguments: &[&str], variables: &[(String, String)]) -> Result<String> {
    let mut command = Command::new(binary().await?);
    command.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
    tokio::task::spawn_blocking(move || run(&mut command)).await.context("running the binary")?
}

/// The binary: `MEANWHILE_BIN`, else the debug build, which is brought up to date once.
pub async fn binary() -> Result<PathBuf> {
    static BUILT: OnceCell<()> = OnceCell::const_new();
    if let Some(binary) = std::env::var_os("MEANWHILE_BIN") {
        return Ok(PathBuf::from(binary));
    }
    BUILT
        .get_or_try_init(|| async {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut build = Command::new(cargo);
            build.current_dir(repository()).args(["build", "--quiet", "--package", "meanwhile"]);
            tokio::task::spawn_blocking(move || run(&mut build).map(drop)).await.context("building")?
        })
        .await?;
    let binary = target_folder().join("debug/meanwhile");
    if !binary.exists() {
        bail!("there is no binary at {}", binary.display());
    }
    Ok(binary)
}
