//! `meanwhile dev`: the latency of a three-step job on the in-process broker, and the cost of an idle dev mode.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use client::{Client, JobState};
use test_kit::{Launch, Port, Process, repository};
use workers::Workers;

use crate::figures::{Report, Section, count, histogram};
use crate::usage::{Counted, Window};
use crate::worker::no_op;

/// `bench dev`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Jobs that are measured, one after the other
    #[arg(long, default_value_t = 300)]
    jobs: u64,
    /// Seconds of doing nothing, for the processors' idle use
    #[arg(long, default_value_t = 20)]
    idle_seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { jobs: 300, idle_seconds: 20 }
    }
}

/// Jobs before those that are measured.
const WARM_UP_JOBS: u64 = 30;
/// Between two jobs, and before the idle time: what the one before has left to do is done then.
const PAUSE: Duration = Duration::from_millis(50);
const SETTLE: Duration = Duration::from_secs(2);
/// Between two questions of the caller for the status.
const ASK_INTERVAL: Duration = Duration::from_millis(2);
/// Only ends a run that hangs.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The dev mode of the benchmark: as `meanwhile dev`, with the benchmark's native step.
pub(crate) fn serve(arguments: Vec<String>) -> std::process::ExitCode {
    let arguments = ["meanwhile", "dev"].into_iter().map(str::to_owned).chain(arguments);
    meanwhile::main_with(arguments, Workers::builder().native("no_op", no_op).build())
}

pub(crate) async fn run(options: &Options, report: &mut Report) -> Result<()> {
    let ports = [Port::take()?, Port::take()?, Port::take()?];
    let [listen, kafka, registry] = ports.each_ref().map(|port| format!("127.0.0.1:{}", port.number()));
    let launch = Launch::new("dev", std::env::current_exe().context("our own program")?);
    let launch = launch.arg("dev-mode").arg(repository().join("crates/bench/flows")).args(["--listen", &listen]);
    let began = Instant::now();
    let mut process = Process::start(launch.args(["--kafka-listen", &kafka, "--registry-listen", &registry]))?;
    let client = Client::new(&format!("http://{listen}"))?;
    let ready = async || client.is_ready().await && client.flows().await.is_ok_and(|flows| flows.len() == 1);
    process.wait_until(READY_WITHIN, "/readyz says ready", ready).await?;
    let mut section = Section::new(format!("dev: {} three-step native jobs, one after the other", options.jobs));
    section.figure("start to ready", began.elapsed().as_secs_f64(), "s");
    measure(&client, WARM_UP_JOBS).await?;
    let window = Window::begin(vec![Counted::new("dev", process.id())])?;
    let [accepted, ended, events] = measure(&client, options.jobs).await?;
    let used = window.end()?;
    section.latencies("request to 202", &accepted);
    section.latencies("202 to `succeeded` seen by the caller", &ended);
    section.latencies("job.accepted to job.succeeded, by their times", &events);
    section.usage(&used);
    report.add(section);
    idle(&process, options, report).await?;
    process.terminate(READY_WITHIN).await?;
    Ok(())
}

async fn idle(process: &Process, options: &Options, report: &mut Report) -> Result<()> {
    tokio::time::sleep(SETTLE).await;
    let window = Window::begin(vec![Counted::new("dev", process.id())])?;
    tokio::time::sleep(Duration::from_secs(options.idle_seconds)).await;
    let used = window.end()?;
    let mut section = Section::new(format!("dev: idle for {} s, its Postgres included", options.idle_seconds));
    let share = used.cpu_s.get("dev").copied().unwrap_or_default() / options.idle_seconds as f64;
    section.figure("of one processor", 100.0 * share, "%");
    section.usage(&used);
    report.add(section);
    Ok(())
}

type Latencies = hdrhistogram::Histogram<u64>;

/// Request to 202; 202 to the end as the caller sees it; first to last event by the times that they carry.
async fn measure(client: &Client, jobs: u64) -> Result<[Latencies; 3]> {
    let [mut accepted, mut ended, mut events] = [histogram(), histogram(), histogram()];
    for _ in 0..jobs {
        let asked = Instant::now();
        let job = client.submit("three", "{}", None).await?.job;
        count(&mut accepted, asked.elapsed());
        let began = Instant::now();
        let status = client.wait_for_end(&job, ASK_INTERVAL).await?;
        count(&mut ended, began.elapsed());
        ensure!(status.status == JobState::Succeeded, "a job that cannot fail is {status:?}");
        count(&mut events, between(&status.created_at, &status.updated_at).context("the times of a job")?);
        tokio::time::sleep(PAUSE).await;
    }
    Ok([accepted, ended, events])
}

/// The time between two RFC 3339 times of one day, in milliseconds; a job over midnight counts as none.
fn between(from: &str, to: &str) -> Option<Duration> {
    let millis = |time: &str| {
        let mut parts = time.get(11..23)?.split([':', '.']).map(str::parse::<u64>);
        let mut next = || parts.next()?.ok();
        Some(((next()? * 60 + next()?) * 60 + next()?) * 1_000 + next()?)
    };
    Some(Duration::from_millis(millis(to)?.saturating_sub(millis(from)?)))
}
