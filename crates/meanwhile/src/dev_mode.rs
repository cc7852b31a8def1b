//! `meanwhile dev`: all roles in one process, on a broker, a registry and a Postgres that come with it.

mod greeting;
mod reload;
mod sample;

use std::convert::Infallible;
use std::process::ExitCode;

use client::Client;
use dev::{Dev, Options};
use ingest::config::commands_tenants;
use process::Base;
use service_kit::CancellationToken;
use service_kit::config::{AuthMode, CallbackSettings, Shared, Sources};
use service_kit::identity::Ids;
use setup::files;
use workers::Workers;

use crate::cli::DevArgs;
use crate::dev_mode::greeting::Greeting;
use crate::dev_mode::reload::Reload;
use crate::healthcheck::reachable;
use crate::roles::{Role, serve, service, target};

/// The networks of this machine alone.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// `meanwhile dev`
pub(crate) async fn run(args: DevArgs, workers: Workers, sources: &Sources) -> anyhow::Result<ExitCode> {
    let mut shared = Shared::load(sources)?;
    if shared.log.level == "info" {
        // On a laptop somebody looks at each job.
        shared.log.level.push_str(",transitions=debug");
    }
    let work = |shutdown| run_until(shutdown, args, workers, shared.clone(), sources);
    process::run(&service(&Role::ALL), &shared, work).await?;
    Ok(ExitCode::SUCCESS)
}

async fn run_until(
    shutdown: CancellationToken,
    args: DevArgs,
    workers: Workers,
    mut shared: Shared,
    sources: &Sources,
) -> anyhow::Result<()> {
    // A flow that does not lint stops here, before anything is started.
    let definitions = files::read_to_apply(&args.flows)?;
    let options = Options {
        database_url: shared.database_url.clone(),
        kafka_brokers: shared.kafka_brokers.clone(),
        registry_url: shared.registry_url.clone(),
        kafka_listen: args.kafka_listen,
        registry_listen: args.registry_listen,
    };
    let Some(dev) = shutdown.run_until_cancelled(Dev::start(options)).await else { return Ok(()) };
    let dev = dev?;
    let listen = shared.listen.clone().unwrap_or(args.listen);
    shared.listen = Some(listen.clone());
    shared.database_url = Some(dev.database_url.clone());
    shared.kafka_brokers = Some(dev.kafka_brokers.clone());
    shared.registry_url = Some(dev.registry_url.clone());
    if shared.documents.url.is_empty() {
        shared.documents.url = dev.documents_url();
    }
    if shared.auth.mode == AuthMode::Auto {
        shared.auth.mode = AuthMode::Off;
    }
    certify_callbacks(&mut shared.callbacks, &listen);
    // Receivers of webhooks run on the same laptop.
    shared.webhooks.allow_networks.extend(LOOPBACK.map(str::to_owned));
    let mut base = Base::new(shared)?;
    base.bus.in_process = dev.in_process.clone();
    let (target, tenants) = (target(&base)?, commands_tenants(sources)?);
    // Before anything is read again, so that a change in between is seen.
    let reload = Reload::new(&args.flows, &definitions, target.clone());
    let ready = async {
        setup::prepare(&target, None).await?;
        target.create_commands(&tenants).await?;
        target.apply_flows(&definitions).await
    };
    if let Some(outcome) = shutdown.run_until_cancelled(ready).await {
        outcome?;
        let api = Client::new(&format!("http://{}", reachable(&listen)))?;
        let greeting = Greeting::new(&dev, (&api, &base.shared.auth), &args.flows, &definitions);
        tokio::select! {
            outcome = serve(&Role::ALL, workers, &base, sources, shutdown) => outcome?,
            never = accompany(&api, greeting, reload) => match never {},
        }
    }
    dev.stop().await;
    Ok(())
}

/// Callbacks come to this process, and are known by a secret that nobody else has, unless the settings say otherwise.
#[expect(clippy::disallowed_methods, reason = "chance for a secret that lives as long as this process")]
fn certify_callbacks(callbacks: &mut CallbackSettings, listen: &str) {
    let ids = Ids::system();
    if callbacks.secrets.is_empty() {
        callbacks.secrets.push(format!("{}{}", ids.uuid().simple(), ids.uuid().simple()));
    }
    if callbacks.url.is_empty() {
        callbacks.url = format!("http://{}", reachable(listen));
    }
}

/// Talks to the person at the terminal while the roles run.
async fn accompany(api: &Client, greeting: Greeting, reload: Reload) -> Infallible {
    greeting.show_when_ready(api).await;
    reload.watch().await
}
