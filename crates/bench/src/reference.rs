//! This Kafka and this Postgres by themselves, so that figures can be read as ratios.

use events::headers::Headers;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bus::{Producer, Tail};
use events::record::Record;
use hdrhistogram::Histogram;
use store::{Pool, outbox};
use tokio::task::JoinSet;

use crate::figures::{Report, Section, count, histogram};
use crate::system::{Servers, System};
use crate::usage::Window;
use crate::watch::FETCH_WAIT_MAX;

/// The size of a slip or an event of a small job.
const PAYLOAD_BYTES: usize = 300;
/// Each part is measured for so long.
const MEASURED: Duration = Duration::from_secs(8);
/// The warm-up before it.
const WARM_UP: Duration = Duration::from_secs(3);
/// Records that are under way at once when the rate is measured.
const IN_FLIGHT: usize = 500;

/// A record of 300 bytes whose key is its number.
pub(crate) fn payload(topic: &str, number: u64) -> Record {
    let value = vec![b'x'; PAYLOAD_BYTES];
    Record {
        topic: topic.to_owned(),
        key: Some(number.to_string().into()),
        value: Some(value),
        headers: Headers::default(),
    }
}

pub(crate) async fn run(servers: &Servers, report: &mut Report) -> Result<()> {
    let system = System::prepare(servers).await?;
    let topic = system.topics.events();
    let producer = Producer::new(&servers.settings())?;
    for (name, in_flight) in [("one at a time", 1), ("500 under way", IN_FLIGHT)] {
        let (producer, topic) = (producer.clone(), topic.clone());
        let send = move |number: u64| {
            let (producer, record) = (producer.clone(), payload(&topic, number));
            async move { Ok(producer.send(&record).await.map(drop)?) }
        };
        let title = format!("reference: produce 300 bytes, acks=all, {name}");
        measure(servers, report, title, in_flight, "records/s", send).await?;
    }
    produce_and_read(servers, &producer, &topic, report).await?;
    for connections in [1, 64] {
        let settings = store::Settings { connections_max: 64, ..store::Settings::new(&system.database_url) };
        let pool = Pool::open(&settings, store::Role::Ingest)?;
        let (writer, topic) = (pool.clone(), topic.clone());
        let commit = move |number: u64| {
            let (pool, record) = (writer.clone(), payload(&topic, number));
            async move {
                let mut tx = pool.begin().await?;
                outbox::append(&mut tx, &[record]).await?;
                Ok(tx.commit().await?)
            }
        };
        let title = format!("reference: commit one outbox row, {connections} connection(s)");
        measure(servers, report, title, connections, "commits/s", commit).await?;
        pool.close().await;
    }
    system.stop().await
}

/// `parallel` tasks call `action`, each one after the other.
async fn measure<A>(
    servers: &Servers,
    report: &mut Report,
    title: String,
    parallel: usize,
    unit: &'static str,
    action: impl Fn(u64) -> A + Clone + Send + 'static,
) -> Result<()>
where
    A: Future<Output = Result<()>> + Send,
{
    repeat(WARM_UP, parallel, action.clone()).await?;
    let window = Window::begin(servers.counted())?;
    let began = Instant::now();
    let latencies = repeat(MEASURED, parallel, action).await?;
    let took = began.elapsed();
    let mut section = Section::new(title);
    section.figure("rate", latencies.len() as f64 / took.as_secs_f64(), unit);
    section.latencies("each", &latencies);
    section.usage(&window.end()?);
    report.add(section);
    Ok(())
}

async fn repeat<A>(
    time: Duration,
    parallel: usize,
    action: impl Fn(u64) -> A + Clone + Send + 'static,
) -> Result<Histogram<u64>>
where
    A: Future<Output = Result<()>> + Send,
{
    let (began, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..parallel {
        let (action, next) = (action.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            let mut latencies = histogram();
            while began.elapsed() < time {
                let asked = Instant::now();
                action(next.fetch_add(1, Ordering::Relaxed)).await?;
                count(&mut latencies, asked.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut all = histogram();
    while let Some(ended) = tasks.join_next().await {
        all.add(ended.context("a task")??).context("adding latencies")?;
    }
    Ok(all)
}

/// The shortest way through Kafka: one record at a time, from before it is sent until it is read.
async fn produce_and_read(servers: &Servers, producer: &Producer, topic: &str, report: &mut Report) -> Result<()> {
    let mut tail = Tail::start(&servers.settings(), topic, FETCH_WAIT_MAX).await?;
    let mut latencies = histogram();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < WARM_UP + MEASURED {
        ticks.tick().await;
        let sent = Instant::now();
        let record = payload(topic, number);
        let (acknowledged, read) = tokio::join!(producer.send(&record), tail.next());
        acknowledged?;
        read.context("the tail has ended")?;
        if began.elapsed() > WARM_UP {
            count(&mut latencies, sent.elapsed());
        }
        number += 1;
    }
    let mut section = Section::new("reference: one record through Kafka at 20/s, acks=all");
    section.latencies("sent to acknowledged and read", &latencies);
    report.add(section);
    Ok(())
}
