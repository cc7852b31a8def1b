//! `meanwhile dev`: all roles in one process, on a broker, a registry and a Postgres that come with it.

use std::process::ExitCode;

use anyhow::Context;
use dev::{Dev, Options};
use events::topic::Topics;
use service_kit::config::{Shared, Sources};
use service_kit::{shutdown, telemetry};

use crate::cli::DevArgs;
use crate::flows::{apply_all, read_folder};
use crate::migrate;
use crate::roles::{Base, Role, bus_settings, serve, service};

/// `meanwhile dev`
pub(crate) async fn run(args: DevArgs, sources: &Sources) -> anyhow::Result<ExitCode> {
    let mut shared = Shared::load(sources)?;
    let export = telemetry::init_with_traces(&shared.log, &shared.traces, &service(&Role::ALL), &shared.instance)?;
    // What does not lint stops here, before anything is started.
    let definitions = read_folder(&args.flows)?;
    let shutdown = shutdown::on_signals().context("listening to signals")?;
    let options = Options {
        database_url: shared.database_url.clone(),
        kafka_brokers: shared.kafka_brokers.clone(),
        registry_url: shared.registry_url.clone(),
        kafka_listen: args.kafka_listen,
        registry_listen: args.registry_listen,
    };
    let Some(dev) = shutdown.run_until_cancelled(Dev::start(options)).await else { return Ok(ExitCode::SUCCESS) };
    let dev = dev?;
    let listen = shared.listen.clone().unwrap_or(args.listen);
    shared.listen = Some(listen.clone());
    shared.database_url = Some(dev.database_url.clone());
    shared.kafka_brokers = Some(dev.kafka_brokers.clone());
    shared.registry_url = Some(dev.registry_url.clone());
    let bus = bus::Settings { in_process: dev.in_process.clone(), ..bus_settings(&shared)? };
    let topics = Topics::new(&shared.topics_prefix);
    let base = Base { bus, topics, shared };
    let ready = async {
        migrate::prepare(&base).await?;
        apply_all(&base, &definitions).await
    };
    if let Some(outcome) = shutdown.run_until_cancelled(ready).await {
        outcome?;
        greet(&dev, &listen);
        serve(&Role::ALL, base, sources, shutdown).await?;
    }
    export.finish().await;
    dev.stop().await;
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "tells the person at the terminal where everything is")]
fn greet(dev: &Dev, listen: &str) {
    let (kafka_forgets, postgres_forgets) = dev.forgets();
    println!("\nMeanwhile is starting in development mode. Anybody on this machine may use it.");
    println!("  API       http://{listen}          (readiness: /readyz, metrics: /metrics)");
    println!("  Kafka     {}{}", dev.kafka_shown, if kafka_forgets { "          in this process" } else { "" });
    println!("  Registry  {}", dev.registry_url);
    if kafka_forgets || postgres_forgets {
        println!("  Jobs and records are gone when it ends.");
    }
    println!("\nTry:");
    println!("  curl -i http://{listen}/v1/flows");
    println!("  kcat -C -b {} -t meanwhile.events -o beginning -f '%h\\n'", dev.kafka_shown);
    println!("  meanwhile jobs show JOB --follow\n");
}
