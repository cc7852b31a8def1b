//! Benchmarks: real Kafka (full JIT), real Postgres (fsync), each role a process of its own; figures as ratios in one
//! run.
//!
//! `scripts/tools/bench` builds for release and runs `bench all`; docs/performance.md has the figures and their
//! conditions.
//! Every measurement says beside its figures who used the processors, and how much of that was not ours.

mod accept;
mod dev;
mod figures;
mod latency;
mod load;
mod proxy;
mod reference;
mod relay;
mod system;
mod throughput;
mod usage;
mod watch;
mod webhooks;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::figures::Report;
use crate::system::Servers;

// The workers must run on the allocator of the roles' own binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Benchmarks of Meanwhile. MEANWHILE_BIN names the binary to measure.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Write the figures as JSON here, too
    #[arg(long, global = true)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Accepted requests per second, durably committed
    Accept(accept::Options),
    /// Three-step jobs per second, from HTTP to the final event
    Throughput(throughput::Options),
    /// Latency of a three-step job when little is going on
    Latency(latency::Options),
    /// Rows per second and added latency of the outbox's way into Kafka
    Relay(relay::Options),
    /// An old service's endpoint by ingest, and straight
    Proxy(proxy::Options),
    /// Signed webhooks per second, and their latency beside a dead receiver
    Webhooks(webhooks::Options),
    /// This Kafka and this Postgres without Meanwhile
    Reference,
    /// Latency of a three-step job in `meanwhile dev`, and the cost of an idle one
    Dev(dev::Options),
    /// All of these
    All,
    /// The workers of the benchmark's flow; started by the others
    #[command(hide = true)]
    Worker,
    /// An old service that answers at once; started by `proxy`
    #[command(hide = true)]
    OldService { listen: std::net::SocketAddr },
    /// The dev mode of the benchmark; started by `dev`
    #[command(hide = true)]
    DevMode {
        /// As `meanwhile dev` takes them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let What::DevMode { arguments } = arguments.what {
        return dev::serve(arguments);
    }
    service_kit::tls::install_ring();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.context("starting the runtime").and_then(|runtime| runtime.block_on(run(arguments)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            figures::say(&format!("bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.what {
        What::Worker => return worker::serve().await,
        What::OldService { listen } => return proxy::serve(listen).await,
        _ => {}
    }
    let mut report = Report::begin()?;
    if let What::Dev(options) = &arguments.what {
        dev::run(options, &mut report).await?;
        return report.end(arguments.json.as_deref());
    }
    figures::say("starting Kafka (full JIT), Postgres (fsync) and the registry ...");
    let servers = Servers::start().await?;
    match arguments.what {
        What::Accept(options) => accept::run(&servers, &options, &mut report).await?,
        What::Throughput(options) => throughput::run(&servers, &options, &mut report).await?,
        What::Latency(options) => latency::run(&servers, &options, &mut report).await?,
        What::Relay(options) => relay::run(&servers, &options, &mut report).await?,
        What::Proxy(options) => proxy::run(&servers, &options, &mut report).await?,
        What::Webhooks(options) => webhooks::run(&servers, &options, &mut report).await?,
        What::Reference => reference::run(&servers, &mut report).await?,
        What::All | What::Worker | What::OldService { .. } | What::Dev(_) | What::DevMode { .. } => {
            reference::run(&servers, &mut report).await?;
            accept::run(&servers, &accept::Options::default(), &mut report).await?;
            throughput::run(&servers, &throughput::Options::default(), &mut report).await?;
            latency::run(&servers, &latency::Options::default(), &mut report).await?;
            relay::run(&servers, &relay::Options::default(), &mut report).await?;
            proxy::run(&servers, &proxy::Options::default(), &mut report).await?;
            webhooks::run(&servers, &webhooks::Options::default(), &mut report).await?;
            dev::run(&dev::Options::default(), &mut report).await?;
        }
    }
    report.end(arguments.json.as_deref())
}
