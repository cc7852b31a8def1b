//! Signed webhooks a second, sustained: from an event on Kafka to its receiver, with and without a dead receiver.
//!
//! Only the notifier runs. Each of many tenants has one endpoint, at a listener of its own, and each event is of one
//! tenant.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use bus::{Producer, Reader};
use clap::Args;
use events::{WriterIds, event_record};
use flow::event::{EventKind, JobStatus};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use store::Pool;
use store::webhooks::{self, Kind, NewEndpoint};
use test_kit::{Role, TEST_TRACE, sample_event, sample_job};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::figures::{Report, Section, count, histogram};
use crate::system::{Servers, System};
use crate::usage::{Use, Window};

/// `bench webhooks`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Endpoints, each of a tenant of its own
    #[arg(long, default_value_t = 100)]
    endpoints: usize,
    /// Events a second, each of which is one delivery
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { endpoints: 100, rate: 1_000, seconds: 30 }
    }
}

/// The warm-up of each measurement.
const WARM_UP: Duration = Duration::from_secs(5);
/// The time between two portions of events.
const TICK: Duration = Duration::from_millis(10);
/// Only ends a run that hangs: without a delivery for so long.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A key, of which the receivers verify nothing: the signing is what is measured.
const SECRET: [u8; 32] = [7; 32];

pub(crate) async fn run(servers: &Servers, options: &Options, report: &mut Report) -> Result<()> {
    for dead in [0, 1] {
        measure(servers, options, dead, report).await?;
    }
    Ok(())
}

/// What the receivers have got, and when.
struct Taken {
    began: Instant,
    received: Mutex<Received>,
}

struct Received {
    /// Of events that were sent from then on.
    latencies: Histogram<u64>,
    from: Duration,
    ids: HashSet<String>,
    repeated: u64,
    last: Instant,
}

impl Taken {
    /// The time at which the event was sent stands in its key.
    fn note(&self, headers: &HeaderMap, body: &[u8]) -> Option<()> {
        let now = Instant::now();
        let text = std::str::from_utf8(body).ok()?;
        let (_, rest) = text.split_once("\"key\":\"")?;
        let sent = Duration::from_micros(rest.split_once('"')?.0.parse().ok()?);
        let id = headers.get("webhook-id")?.to_str().ok()?;
        headers.get("webhook-signature")?;
        let mut received = self.received.lock();
        received.last = now;
        if !received.ids.insert(id.to_owned()) {
            received.repeated += 1;
        } else if sent >= received.from {
            count(&mut received.latencies, now.duration_since(self.began).saturating_sub(sent));
        }
        Some(())
    }
}

async fn receive(State(taken): State<Arc<Taken>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    taken.note(&headers, &body).map_or(StatusCode::BAD_REQUEST, |()| StatusCode::NO_CONTENT)
}

async fn measure(servers: &Servers, options: &Options, dead: usize, report: &mut Report) -> Result<()> {
    let mut system = System::prepare(servers).await?;
    system.set("MEANWHILE__WEBHOOKS__ALLOW_NETWORKS", "127.0.0.0/8");
    let from = Duration::MAX;
    let received = Received { latencies: histogram(), from, ids: HashSet::new(), repeated: 0, last: Instant::now() };
    let taken = Arc::new(Taken { began: Instant::now(), received: Mutex::new(received) });
    let (mut receivers, mut silent) = (JoinSet::new(), Vec::new());
    let pool = Pool::open(&store::Settings::new(&system.database_url), store::Role::Ingest)?;
    for number in 0..options.endpoints {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("a port of a receiver")?;
        register(&pool, &tenant(number), listener.local_addr().context("its address")?).await?;
        if number < dead {
            // The kernel accepts for it; nobody answers.
            silent.push(listener);
            continue;
        }
        let router = Router::new().fallback(receive).with_state(Arc::clone(&taken));
        receivers.spawn(async move { axum::serve(listener, router).await });
    }
    system.start(&[Role::Notifier]).await?;
    let source = Source::new(servers, &system, Arc::clone(&taken)).await?;
    source.send((options, WARM_UP), dead).await?;
    taken.received.lock().from = taken.began.elapsed();
    let window = Window::begin([system.counted(), servers.counted()].concat())?;
    let began = Instant::now();
    let sent = source.send((options, Duration::from_secs(options.seconds)), dead).await?;
    until_received(&taken, sent).await?;
    let used = window.end()?;
    report.add(section(&taken, (options, dead), (began, sent), &used));
    receivers.shutdown().await;
    pool.close().await;
    system.stop().await
}

fn section(taken: &Taken, (options, dead): (&Options, usize), (began, sent): (Instant, u64), used: &Use) -> Section {
    let received = taken.received.lock();
    let (live, rate) = (options.endpoints - dead, options.rate);
    let mut section = Section::new(format!("webhooks: {rate} events/s, {live} live endpoints, {dead} dead"));
    section.figure("delivered", sent as f64 / received.last.duration_since(began).as_secs_f64(), "/s");
    section.latencies("event to receipt", &received.latencies);
    section.figure("event to receipt, the longest", received.latencies.max() as f64 / 1e3, "ms");
    section.figure("delivered twice", received.repeated as f64, "");
    section.figure("cpu per delivery, all processes", 1e3 * used.total_cpu_s() / sent as f64, "ms");
    section.usage(used);
    section
}

fn tenant(number: usize) -> String {
    format!("tenant-{number}")
}

async fn register(pool: &Pool, tenant: &str, address: SocketAddr) -> Result<()> {
    let new = NewEndpoint {
        id: sample_job().uuid(),
        url: &format!("http://{address}/hook"),
        description: "",
        events: &["job.succeeded".to_owned()],
        rate: None,
        kind: Kind::Hmac,
        secret: &SECRET,
    };
    if !webhooks::create(pool, tenant, new, 1).await? {
        bail!("the endpoint of {tenant} is there already");
    }
    Ok(())
}

async fn until_received(taken: &Taken, count: u64) -> Result<()> {
    loop {
        let (received, last) = {
            let received = taken.received.lock();
            (received.latencies.len(), received.last)
        };
        if received >= count {
            return Ok(());
        }
        if last.elapsed() > SILENCE_MAX {
            bail!("{received} of {count} deliveries were made, and then none for a minute");
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Events at a steady rate.
struct Source {
    producer: Producer,
    writers: WriterIds,
    topics: events::topic::Topics,
    taken: Arc<Taken>,
}

impl Source {
    async fn new(servers: &Servers, system: &System, taken: Arc<Taken>) -> Result<Self> {
        let reader = Reader::new(servers.registry()?);
        let writers = reader.writer_ids(&system.topics).await?;
        let producer = Producer::new(&servers.settings())?;
        Ok(Self { producer, writers, topics: system.topics.clone(), taken })
    }

    /// Returns how many of the events are for receivers that live.
    async fn send(&self, (options, time): (&Options, Duration), dead: usize) -> Result<u64> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (began, mut sent, mut live, mut sending) = (Instant::now(), 0_u64, 0, JoinSet::new());
        while began.elapsed() < time {
            tick.tick().await;
            let due = (began.elapsed().as_secs_f64() * options.rate as f64) as u64;
            while sent < due {
                let number = usize::try_from(sent)? % options.endpoints;
                let (record, producer) = (self.event(number)?, self.producer.clone());
                sending.spawn(async move { producer.send(&record).await.map(drop) });
                (sent, live) = (sent + 1, live + u64::from(number >= dead));
            }
            while let Some(ended) = sending.try_join_next() {
                ended.context("sending an event")??;
            }
        }
        while let Some(ended) = sending.join_next().await {
            ended.context("sending an event")??;
        }
        Ok(live)
    }

    fn event(&self, number: usize) -> Result<events::Record> {
        let mut event = sample_event(sample_job(), EventKind::JobSucceeded, JobStatus::Succeeded, 1);
        event.facts.tenant = tenant(number);
        event.facts.key = self.taken.began.elapsed().as_micros().to_string();
        Ok(event_record(&self.topics, &self.writers, &event, &TEST_TRACE)?)
    }
}
