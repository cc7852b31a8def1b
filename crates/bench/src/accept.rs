//! Requests accepted per second, each answered only when its commit is durable.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use test_kit::Role;

use crate::figures::{Report, Section};
use crate::load::{Asked, Until, closed_loop};
use crate::system::{Servers, System};
use crate::usage::Window;

/// `bench accept`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Connections that submit at once
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds of the measurement
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// With and without API keys in turns, in place of with and without the relay
    #[arg(long)]
    keys: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { connections: 64, seconds: 15, keys: false }
    }
}

/// Rounds of with and without keys, so that a machine that becomes slower meets both.
const ROUNDS: usize = 3;

/// The warm-up.
const WARM_UP: Duration = Duration::from_secs(3);

/// Ingest alone, asked by callers who show an API key, and by callers who need none.
async fn with_keys(servers: &Servers, options: &Options, report: &mut Report) -> Result<()> {
    let (mut open, mut locked) = (System::prepare(servers).await?, System::prepare(servers).await?);
    locked.ask_for_keys().await?;
    for system in [&mut open, &mut locked] {
        system.start(&[Role::Ingest]).await?;
    }
    let time = Until::Passed(Duration::from_secs(options.seconds));
    let ways = [("without keys", open.address()?, Asked::Job), ("with a key", locked.address()?, Asked::JobByKey)];
    for (_, address, asked) in ways {
        closed_loop(address, asked, options.connections, Until::Passed(WARM_UP)).await?;
    }
    for round in 1..=ROUNDS {
        for (way, address, asked) in ways {
            let alone = closed_loop(address, asked, 1, time).await?;
            let done = closed_loop(address, asked, options.connections, time).await?;
            let mut section = Section::new(format!("accept: {way}, round {round} of {ROUNDS}"));
            section.latencies("request to 202 at one connection", &alone.latencies);
            section.figure(format!("accepted at {} connections", options.connections), done.per_s(), "requests/s");
            section.latencies("  of them", &done.latencies);
            report.add(section);
        }
    }
    open.stop().await?;
    locked.stop().await
}

pub(crate) async fn run(servers: &Servers, options: &Options, report: &mut Report) -> Result<()> {
    if options.keys {
        return with_keys(servers, options, report).await;
    }
    for roles in [&[Role::Ingest][..], &[Role::Ingest, Role::Relay]] {
        let mut system = System::prepare(servers).await?;
        system.start(roles).await?;
        closed_loop(system.address()?, Asked::Job, options.connections, Until::Passed(WARM_UP)).await?;
        let window = Window::begin([system.counted(), servers.counted()].concat())?;
        let measured = Until::Passed(Duration::from_secs(options.seconds));
        let done = closed_loop(system.address()?, Asked::Job, options.connections, measured).await?;
        let used = window.end()?;
        let with = if roles.len() > 1 { "with the relay beside it" } else { "nothing but ingest running" };
        let mut section = Section::new(format!("accept: {} connections, {with}", options.connections));
        section.figure("accepted", done.per_s(), "requests/s");
        section.latencies("request to 202", &done.latencies);
        section.figure("cpu per request, all processes", 1e6 * used.total_cpu_s() / done.latencies.len() as f64, "us");
        section.usage(&used);
        report.add(section);
        system.stop().await?;
    }
    Ok(())
}
