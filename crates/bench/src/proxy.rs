//! What `execution: proxy` adds to an old service's answers, and what it keeps of that service's rate.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::post;
use clap::Args;
use hdrhistogram::Histogram;
use test_kit::{Launch, Port, Process, Role, http_client};
use tokio::time::MissedTickBehavior;

use crate::figures::{Report, Section, count, histogram};
use crate::load::{Asked, Connection, Until, closed_loop};
use crate::system::{Servers, System};
use crate::usage::{Counted, Window};

/// `bench proxy`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Where an old service runs that answers `POST /reports`, such as `examples/legacy`; without it one of our own is
    /// started, which answers at once
    #[arg(long)]
    service: Option<SocketAddr>,
    /// Connections of the load
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Requests a second of the measurement of latency
    #[arg(long, default_value_t = 200)]
    rate: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { service: None, connections: 16, seconds: 10, rate: 200 }
    }
}

/// The warm-up.
const WARM_UP: Duration = Duration::from_secs(3);
/// Rounds of straight and by ingest in turns, so that a machine that becomes slower meets both.
const ROUNDS: usize = 3;
/// Only ends a run that hangs.
const READY_WITHIN: Duration = Duration::from_secs(30);

pub(crate) async fn run(servers: &Servers, options: &Options, report: &mut Report) -> Result<()> {
    let mut own = None;
    let service = match options.service {
        Some(address) => address,
        None => own.insert(OldService::start().await?).address,
    };
    let mut system = System::prepare(servers).await?;
    system.apply("crates/bench/old-service").await?;
    system.set("LEGACY_URL", &format!("http://{service}"));
    system.start(&[Role::Ingest]).await?;
    let places = [("straight", service), ("by ingest", system.address()?)];
    for (_, address) in places {
        closed_loop(address, Asked::OldService, options.connections, Until::Passed(WARM_UP)).await?;
    }
    let counted = |system: &mut System| {
        let own = own.iter().map(|own| Counted::new("the old service", own.process.id()));
        own.chain(system.counted()).collect::<Vec<_>>()
    };
    let time = Duration::from_secs(options.seconds);
    for round in 1..=ROUNDS {
        for (way, address) in places {
            let window = Window::begin(counted(&mut system))?;
            let latencies = open_loop(address, options.rate, time).await?;
            let done = closed_loop(address, Asked::OldService, options.connections, Until::Passed(time)).await?;
            let used = window.end()?;
            let mut section = Section::new(format!("proxy: {way}, round {round} of {ROUNDS}"));
            section.latencies(&format!("answer at {}/s", options.rate), &latencies);
            section.figure(format!("answers at {} connections", options.connections), done.per_s(), "/s");
            section.latencies("  of them", &done.latencies);
            section.usage(&used);
            report.add(section);
        }
    }
    system.stop().await?;
    match own {
        Some(mut own) => own.process.terminate(READY_WITHIN).await.map(|_| ()),
        None => Ok(()),
    }
}

/// One connection, a request at each tick.
async fn open_loop(address: SocketAddr, rate: u32, time: Duration) -> Result<Histogram<u64>> {
    let (mut connection, mut latencies) = (Connection::open(address, Asked::OldService).await?, histogram());
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    while began.elapsed() < time {
        ticks.tick().await;
        let sent = Instant::now();
        connection.ask().await?;
        count(&mut latencies, sent.elapsed());
    }
    Ok(latencies)
}

/// An old service in a process of its own.
#[derive(Debug)]
struct OldService {
    process: Process,
    address: SocketAddr,
    _port: Port,
}

impl OldService {
    async fn start() -> Result<Self> {
        let port = Port::take()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port.number()));
        let ourselves = std::env::current_exe().context("our own program")?;
        let launch = Launch::new("old-service", ourselves).arg("old-service").arg(address.to_string());
        let mut process = Process::start(launch)?;
        let (client, url) = (http_client(), format!("http://{address}/reports"));
        let answers = async || client.post(&url).send().await.is_ok_and(|answer| answer.status().is_success());
        process.wait_until(READY_WITHIN, "it answers", answers).await?;
        Ok(Self { process, address, _port: port })
    }
}

/// `bench old-service`
pub(crate) async fn serve(address: SocketAddr) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await.context("listening")?;
    let answer = async |_body: axum::body::Bytes| r#"{"customer":"customer-1","number":1,"pages":3}"#;
    let router = Router::new().route("/reports", post(answer));
    axum::serve(listener, router).await.context("serving")
}
