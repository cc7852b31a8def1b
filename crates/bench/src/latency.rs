//! The latency of a three-step job when little is going on: from before the request is sent until its final event is
//! read from Kafka (`read_committed`), and where the time goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use flow::id::JobId;
use parking_lot::Mutex;
use test_kit::Role;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::figures::{Report, Section, count, histogram};
use crate::load::{Asked, Connection};
use crate::system::{Servers, System};
use crate::usage::Window;
use crate::watch::{Seen, Watch};

/// `bench latency`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Jobs a second; may be given more than once
    #[arg(long = "rate", default_values_t = [20, 50])]
    rates: Vec<u64>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { rates: vec![20, 50], seconds: 30 }
    }
}

/// Connections that take turns.
const CONNECTIONS: usize = 16;
/// Seconds of the same load before it is measured.
const WARM_UP_S: u64 = 10;
/// Between the moments that can be seen from outside. The job's end comes with its third step, in one transaction.
const STAGES: [&str; 5] =
    ["request to 202", "202 to job.accepted read", "to first step read", "to second step read", "to third step read"];

pub(crate) async fn run(servers: &Servers, options: &Options, report: &mut Report) -> Result<()> {
    let mut system = System::prepare(servers).await?;
    system.start(&Role::ALL).await?;
    let mut watch = Watch::start(servers, &system).await?;
    for rate in &options.rates {
        let jobs = options.seconds * rate;
        for asked in [Asked::Job, Asked::JobAndItsEnd] {
            submit_and_watch(&system, &mut watch, asked, *rate, WARM_UP_S * rate).await?;
            let window = Window::begin([system.counted(), servers.counted()].concat())?;
            let (submitted, seen) = submit_and_watch(&system, &mut watch, asked, *rate, jobs).await?;
            let used = window.end()?;
            let waits = if matches!(asked, Asked::Job) { "" } else { ", whose callers wait for the end" };
            let mut section = Section::new(format!("latency: {jobs} three-step native jobs at {rate}/s{waits}"));
            match asked {
                Asked::Job => show(&mut section, &submitted, &seen)?,
                _ => show_waits(&mut section, &submitted, &seen)?,
            }
            section.usage(&used);
            report.add(section);
        }
    }
    system.stop().await
}

/// When a job was to be submitted, and when its answer came.
#[derive(Debug, Clone, Copy)]
struct Submitted {
    due: Instant,
    answered: Instant,
}

type AllSubmitted = HashMap<JobId, Submitted>;

async fn submit_and_watch(
    system: &System,
    watch: &mut Watch,
    asked: Asked,
    rate: u64,
    jobs: u64,
) -> Result<(AllSubmitted, Seen)> {
    let (submitted, seen) = tokio::join!(open_loop(system, asked, rate, jobs), watch.every_event(jobs));
    Ok((submitted?, seen?))
}

/// Submits at a steady rate, whatever becomes of the requests before: what waits is counted from when it was due.
async fn open_loop(system: &System, asked: Asked, rate: u64, jobs: u64) -> Result<AllSubmitted> {
    let (free, mut idle) = mpsc::channel(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        free.send(Connection::open(system.address()?, asked).await?).await.context("the connections' queue")?;
    }
    let submitted = Arc::new(Mutex::new(AllSubmitted::new()));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).context("the rate")?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tasks = JoinSet::new();
    for _ in 0..jobs {
        // The timer rounds up to whole milliseconds; that is our delay, not the system's.
        ticks.tick().await;
        let due = Instant::now();
        let mut connection = idle.recv().await.context("no connection is left")?;
        let (free, submitted) = (free.clone(), Arc::clone(&submitted));
        tasks.spawn(async move {
            let job = connection.submit().await?;
            let times = Submitted { due, answered: Instant::now() };
            submitted.lock().insert(job, times);
            // Nobody takes it any more when the run is over.
            let _ = free.send(connection).await;
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a request's task")??;
    }
    let mut submitted = submitted.lock();
    Ok(std::mem::take(&mut submitted))
}

fn show(section: &mut Section, submitted: &AllSubmitted, seen: &Seen) -> Result<()> {
    let mut whole = histogram();
    let mut stages = STAGES.map(|_| histogram());
    for (job, Submitted { due, answered }) in submitted {
        let events = seen.get(job).context("a job without events")?;
        let last = events.last().context("a job without events")?;
        count(&mut whole, last.duration_since(*due));
        let times = [due, answered].into_iter().chain(events);
        for ((from, to), stage) in times.clone().zip(times.skip(1)).zip(&mut stages) {
            count(stage, to.saturating_duration_since(*from));
        }
    }
    section.latencies("submit to final event", &whole);
    for (name, stage) in STAGES.iter().zip(&stages) {
        section.latencies(&format!("  {name}"), stage);
    }
    Ok(())
}

/// A wait costs the time by which its answer comes after the job's end has been read from Kafka.
fn show_waits(section: &mut Section, submitted: &AllSubmitted, seen: &Seen) -> Result<()> {
    let (mut whole, mut answers, mut added) = (histogram(), histogram(), histogram());
    for (job, Submitted { due, answered }) in submitted {
        let last = seen.get(job).and_then(|events| events.last()).context("a job without events")?;
        count(&mut whole, last.duration_since(*due));
        count(&mut answers, answered.duration_since(*due));
        count(&mut added, answered.saturating_duration_since(*last));
    }
    section.latencies("submit to final event", &whole);
    section.latencies("submit to the awaited answer", &answers);
    section.latencies("  of it after the final event was read", &added);
    Ok(())
}
