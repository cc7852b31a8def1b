//! The one way in which our processes begin and end: the binary's roles, and a team's own workers.
//!
//! `main` reads the environment once ([`service_kit::config::Sources`]) and loads a [`Base`]. [`run`] adds telemetry
//! and signals, [`serve`] adds the listener, health and metrics. Each service gets a [`Process`]: it draws neither time
//! nor ids by itself.

mod base;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use service_kit::config::Shared;
use service_kit::health::{self, Readiness};
use service_kit::identity::{Clock, Ids};
use service_kit::set_back::set_back;
use service_kit::tasks::Tasks;
use service_kit::telemetry::{self, Metrics};
use service_kit::{CancellationToken, shutdown};
use tokio::net::TcpListener;
use web::problem::PublicUrl;
use web::server::{Server, Tls};

pub use base::{Base, ServiceSettings, registry_access};

/// The parts of a process that its services share.
#[derive(Debug, Clone)]
pub struct Process {
    pub readiness: Readiness,
    pub clock: Clock,
    pub ids: Ids,
}

impl Process {
    /// The process of one role, with the system's clock and ids.
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub fn system(role: &str) -> Self {
        let clock = Clock::system();
        Self { readiness: Readiness::new(clock.clone(), role), clock, ids: Ids::system() }
    }

    /// The same process, with the readiness of another of its roles.
    #[must_use]
    pub fn for_role(&self, role: &str) -> Self {
        Self { readiness: self.readiness.for_role(role), ..self.clone() }
    }
}

/// The listener of a process, and the routes that it answers in any case.
#[derive(Debug)]
pub struct Door {
    pub listener: TcpListener,
    /// None: the port speaks plain HTTP.
    pub tls: Option<Tls>,
    pub health: Router,
}

/// A process that is up. Its services are started as tasks.
#[derive(Debug)]
pub struct Host {
    pub process: Process,
    pub address: SocketAddr,
    /// The door, for a service with an API. If no service takes it, the process serves only health and metrics.
    pub door: Option<Door>,
    pub tasks: Tasks,
}

/// Runs `work` with logs, traces and signals: its token is cancelled by the first SIGTERM or SIGINT. `service` is the
/// name of the process in traces. Call it once, in `main`.
///
/// # Errors
/// Those of `work`; or a setting of telemetry cannot be used.
pub async fn run<W, F>(service: &str, shared: &Shared, work: W) -> anyhow::Result<()>
where
    W: FnOnce(CancellationToken) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let export = telemetry::init_with_traces(&shared.log, &shared.traces, service, &shared.instance)?;
    let shutdown = shutdown::on_signals().context("listening to signals")?;
    let outcome = work(shutdown).await;
    export.finish().await;
    outcome
}

/// The clock may be set back by so much: Kafka's client stands still for as long. Beyond it a new start is quicker.
const SET_BACK_MAX: Duration = Duration::from_secs(30);

/// Fails once the wall clock was set back by more than [`SET_BACK_MAX`].
async fn watch_clock(clock: Clock, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Some(back) = shutdown.run_until_cancelled(set_back(&clock, SET_BACK_MAX)).await else { return Ok(()) };
    bail!(
        "the wall clock was set back by {} s: Kafka's client would stand still for as long, so this process leaves, to \
         be started anew by whatever runs it",
        back.as_secs()
    );
}

/// Listens, starts services, and waits until all have left. `listen` is the address where the settings have none.
///
/// # Errors
/// The address cannot be used; or the first failure of a service.
pub async fn serve(
    base: &Base,
    role: &str,
    listen: &str,
    shutdown: CancellationToken,
    start: impl FnOnce(&mut Host) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let process = Process::system(role);
    let metrics = Metrics::install()?;
    let tls = Tls::load(&base.shared.tls)?;
    let listener = health::bind(base.shared.listen_or(listen)).await?;
    let address = listener.local_addr().context("the listener's address")?;
    let router = health::router(process.readiness.clone(), metrics.clone());
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn("metrics upkeep", metrics.upkeep(shutdown.clone()));
    tasks.spawn("the wall clock", watch_clock(process.clock.clone(), shutdown.clone()));
    if let Some(tls) = tls.clone() {
        tasks.spawn("the files of TLS", tls.follow(shutdown.clone()));
    }
    let mut host = Host { process, address, door: Some(Door { listener, tls, health: router }), tasks };
    start(&mut host)?;
    if let Some(Door { listener, tls, health }) = host.door {
        let mut server = Server::new(PublicUrl::default().with_tls(tls.is_some()), host.process.clock.clone());
        server.tls = tls;
        host.tasks.spawn("health", server.serve(listener, health, shutdown));
    }
    host.tasks.join().await
}
