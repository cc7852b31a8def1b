//! The outbox's way into Kafka: how fast a backlog is drained, and how much later than its commit a row can be read.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bus::Tail;
use clap::Args;
use events::record::Record;
use store::{Pool, outbox};
use test_kit::Role;
use tokio::time::MissedTickBehavior;

use crate::figures::{Report, Section, count, histogram};
use crate::reference::payload;
use crate::system::{Servers, System};
use crate::usage::Window;
use crate::watch::FETCH_WAIT_MAX;

/// `bench relay`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Rows of the backlog
    #[arg(long, default_value_t = 200_000)]
    rows: u64,
    /// Rows a second, one per transaction, for the added latency
    #[arg(long, default_value_t = 200)]
    rate: u64,
    /// Seconds of that measurement
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Let the relay poll the table in place of reading the log
    #[arg(long)]
    polling: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { rows: 200_000, rate: 200, seconds: 20, polling: false }
    }
}

/// Rows of one transaction of the backlog, as a busy group commit writes them.
const BACKLOG_ROWS_PER_COMMIT: u64 = 100;
/// Only ends a run that hangs.
const SILENCE_MAX: Duration = Duration::from_secs(120);

pub(crate) async fn run(servers: &Servers, options: &Options, report: &mut Report) -> Result<()> {
    let mut system = System::prepare(servers).await?;
    if options.polling {
        system.migrate(&["--outbox-reader", "polling"]).await?;
    }
    let pool = Pool::open(&store::Settings::new(&system.database_url), store::Role::Ingest)?;
    let mut tail = Tail::start(&servers.settings(), &system.topics.events(), FETCH_WAIT_MAX).await?;
    drain(servers, options, &mut system, &pool, &mut tail, report).await?;
    added_latency(servers, options, &mut system, &pool, &mut tail, report).await?;
    pool.close().await;
    system.stop().await
}

async fn append(pool: &Pool, topic: &str, numbers: std::ops::Range<u64>) -> Result<()> {
    let records: Vec<Record> = numbers.map(|number| payload(topic, number)).collect();
    let mut tx = pool.begin().await?;
    outbox::append(&mut tx, &records).await?;
    Ok(tx.commit().await?)
}

async fn drain(
    servers: &Servers,
    options: &Options,
    system: &mut System,
    pool: &Pool,
    tail: &mut Tail,
    report: &mut Report,
) -> Result<()> {
    let topic = system.topics.events();
    let mut next = 0;
    while next < options.rows {
        let end = (next + BACKLOG_ROWS_PER_COMMIT).min(options.rows);
        append(pool, &topic, next..end).await?;
        next = end;
    }
    let began = Instant::now();
    system.start(&[Role::Relay]).await?;
    let window = Window::begin([system.counted(), servers.counted()].concat())?;
    let (mut read, mut first) = (0, None);
    while read < options.rows {
        let records = next_records(tail).await?;
        read += records.len() as u64;
        first.get_or_insert_with(|| (Instant::now(), read));
    }
    let (first, first_rows) = first.context("there was no backlog")?;
    let used = window.end()?;
    let mut section = Section::new(format!("relay: draining {} rows of 300 bytes", options.rows));
    section.figure("drained", (options.rows - first_rows) as f64 / first.elapsed().as_secs_f64(), "rows/s");
    section.figure("from the relay's start to the last row read", began.elapsed().as_secs_f64(), "s");
    section.usage(&used);
    report.add(section);
    Ok(())
}

async fn added_latency(
    servers: &Servers,
    options: &Options,
    system: &mut System,
    pool: &Pool,
    tail: &mut Tail,
    report: &mut Report,
) -> Result<()> {
    let topic = system.topics.events();
    let rows = options.rate * options.seconds;
    let window = Window::begin([system.counted(), servers.counted()].concat())?;
    let write = async {
        let mut committed = Vec::with_capacity(usize::try_from(rows)?);
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(options.rate)?);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 0..rows {
            ticks.tick().await;
            append(pool, &topic, number..number + 1).await?;
            committed.push(Instant::now());
        }
        anyhow::Ok(committed)
    };
    let read = async {
        let mut seen = Vec::with_capacity(usize::try_from(rows)?);
        while (seen.len() as u64) < rows {
            let records = next_records(tail).await?;
            let now = Instant::now();
            for record in records {
                seen.push((number_of(&record)?, now));
            }
        }
        anyhow::Ok(seen)
    };
    let (committed, seen) = tokio::join!(write, read);
    let (committed, seen) = (committed?, seen?);
    let used = window.end()?;
    let mut added = histogram();
    for (number, at) in seen {
        let committed = committed.get(number).context("a row that was not written")?;
        count(&mut added, at.saturating_duration_since(*committed));
    }
    let mut section = Section::new(format!("relay: one row per transaction at {}/s", options.rate));
    section.latencies("commit to read from Kafka", &added);
    section.usage(&used);
    report.add(section);
    Ok(())
}

async fn next_records(tail: &mut Tail) -> Result<Vec<bus::Inbound>> {
    let records = tokio::time::timeout(SILENCE_MAX, tail.next()).await;
    records.context("nothing was relayed for two minutes")?.context("the tail has ended")
}

fn number_of(record: &bus::Inbound) -> Result<usize> {
    let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).context("a record's key")?;
    key.parse().context("a record's key")
}
