//! The door: HTTP and Kafka commands in, durable jobs and their status out.
//!
//! Promise: a `202` is given only for a job that is committed together with its first slip; the same idempotency key
//! never makes two jobs, whichever door it comes through; no status goes back in time.
//!
//! Read in this order: `plan` (request to values), `accept` (group commit), `http` and `submit` (the HTTP door),
//! `commands` (the Kafka door), `recent` and `job_lookup` (the way back), `wait` and `waiters` (answers that wait),
//! then one file per verb: `status`, `result`, `streams`, `retry`, `cancel`, `flows`, `flags`, `webhooks` and so on.
//! Flows' own addresses: `routed` decides by `flow::flags` whether `submit` or `proxy` serves a request.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use bus::admin::Admin;
use bus::{FollowerOptions, Reader, Registry, SingleRecords, Table, Tail, TopicPartition};
use documents::Documents;
use events::{Inbound, Writer};
use inbox::Inbox;
use outbound::Guard;
use process::{Door, Process};
use service_kit::retry::until_ok;
use service_kit::tasks::Tasks;
use store::{Pool, Role};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use web::problem::PublicUrl;
use web::server::{Server, without_delay};

mod accept;
mod admit;
mod allowance;
mod answer;
mod arrive;
mod asyncapi;
mod audit;
pub mod auth;
mod backpressure;
mod batch;
mod body;
mod breakers;
mod callback;
mod callers;
mod cancel;
mod cancels;
mod catalog;
mod commands;
pub mod config;
mod content;
mod dead_letters;
mod deprecation;
mod docs;
mod estimate;
mod estimates;
mod expiry;
mod flags;
mod flows;
mod follow_flows;
mod followed;
mod http;
mod idempotency;
mod if_match;
mod in_bulk;
mod in_time;
mod job_lookup;
mod jobs_in_bulk;
mod keys;
mod known_flags;
mod leaving;
mod limits;
mod list_callers;
mod list_jobs;
mod modes;
mod open_jobs;
pub mod openapi;
mod past;
mod plan;
mod polls;
mod progress;
mod projected;
mod proxy;
mod query;
mod quotas;
mod recent;
mod report;
mod reports_out;
mod request_parts;
mod result;
mod resume;
mod retry;
mod routed;
mod settings;
mod signal;
mod spans;
mod state;
mod stats;
mod status;
mod stored;
mod streams;
mod submit;
mod time_left;
mod triggers;
mod under_way;
mod upkeep;
mod upload;
mod violations;
mod wait;
mod waiters;
mod webhooks;

use crate::accept::Acceptor;
use crate::auth::{Auth, known_keys};
use crate::backpressure::Backpressure;
use crate::callers::Callers;
use crate::catalog::Catalog;
use crate::commands::Commands;
use crate::estimates::Estimates;
use crate::follow_flows::{addresses, follow_flows, learn};
use crate::known_flags::KnownFlags;
use crate::leaving::Leaving;
use crate::plan::Planner;
use crate::polls::Polls;
use crate::progress::Reports;
use crate::projected::Projected;
use crate::proxy::Proxy;
use crate::quotas::Quotas;
use crate::recent::RecentJobs;
use crate::reports_out::ReportsOut;
pub use crate::settings::Settings;
use crate::state::Api;
use crate::streams::{Seen, Streams};

/// Kafka may delay a fetch on the events topic by this time. A status may lag behind as much at low load.
const TAIL_FETCH_WAIT_MAX: Duration = Duration::from_millis(20);
/// At its start the process reads this many offsets back in each partition of the events, or as many as the projection
/// lags behind. A larger look-back costs time at the start.
const BACKLOG_OFFSETS: i64 = 2_000;
/// But not more than this. Where the projection lags by more, jobs that it does not know to have ended have no status
/// until it has caught up.
const BACKLOG_OFFSETS_MAX: i64 = 20_000;

/// Of the database connections, so many are for accepting alone: one commits, and one may still be ending. Whatever
/// reads do, a request is stored or refused in its time.
const ACCEPTOR_CONNECTIONS: u32 = 2;

/// Runs until it is `asked` to end, and a little longer: see `leave_after_ms` and `drain_timeout_ms`. Listens at once;
/// what needs Kafka, Postgres or the registry answers 503 until they are there.
///
/// # Errors
/// Only errors that a retry does not mend: a setting that cannot be used, an offset that is no longer in the log.
pub async fn run(settings: Settings, door: Door, process: Process, asked: CancellationToken) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    settings.config.check()?;
    let (acceptor, groups) = Acceptor::start(open(&settings, ACCEPTOR_CONNECTIONS)?, process.readiness.clone());
    let leaving = Leaving::before(&shutdown);
    let api = Arc::new(api(&settings, process, acceptor, leaving.clone())?);
    let mut tasks = Tasks::new(shutdown.clone());
    let (of_api, until) = (Arc::clone(&api), shutdown.clone());
    tasks.spawn("leaving", async move {
        of_api.leaving.once_asked(&asked, &of_api.config, &of_api.readiness, &until).await;
        Ok(())
    });
    // Requests that are being answered need the group commit until the server has let go of them.
    let served = CancellationToken::new();
    tasks.spawn("group commit", accept::until_shutdown(groups, served.clone()));
    let mut server = Server::new(api.public_url.clone(), api.clock.clone());
    server.limits.leave_timeout = api.config.answer_timeout();
    let router = http::router(Arc::clone(&api), door.health)?;
    let (begun, all) = (leaving.begun.clone(), shutdown.clone());
    tasks.spawn("http", async move {
        let outcome = server.serve(without_delay(door.listener), router, begun).await;
        // Those who were held needed all the rest until now.
        leaving::no_request_is_left(&all, &served);
        outcome
    });
    let topics = settings.topics.clone();
    let (of_api, bus, of_queues, until) = (Arc::clone(&api), settings.bus.clone(), topics.clone(), shutdown.clone());
    tasks.spawn("backpressure", async move { of_api.backpressure.watch(&bus, &of_queues, &until).await });
    beside_routes(&mut tasks, &api, open(&settings, 2)?, &shutdown);
    if let Some(documents) = api.documents.clone() {
        tasks.spawn("documents", documents.watch(shutdown.clone()));
    }
    tasks.spawn("kafka", follow_kafka(settings, Arc::clone(&api), shutdown.clone()));
    let streams = Arc::clone(&api.streams);
    let until = shutdown.clone();
    tasks.spawn("streams", async move {
        leaving.begun.cancelled().await;
        streams.until_all_left().await;
        until.cancelled().await;
        Ok(())
    });
    let (of_api, until) = (Arc::clone(&api), shutdown.clone());
    tasks.spawn("estimates", async move {
        estimates::keep(&of_api.estimates, (&of_api.pool, &of_api.catalog), &until).await
    });
    tasks.spawn("upkeep", upkeep::run(api, topics, shutdown));
    tasks.join().await
}

/// Starts the work beside routes. `listening` has two connections of its own.
fn beside_routes(tasks: &mut Tasks, api: &Arc<Api>, listening: Pool, shutdown: &CancellationToken) {
    let keys_listening = listening.clone();
    let (of_api, until) = (Arc::clone(api), shutdown.clone());
    tasks.spawn("flags", async move {
        let look_every = of_api.config.flags_look();
        known_flags::keep(&of_api.flags, (&of_api.pool, &listening), look_every, &until).await
    });
    let (of_api, until) = (Arc::clone(api), shutdown.clone());
    tasks.spawn("callers", async move { callers::keep(&of_api.callers, &of_api.pool, &until).await });
    let (of_api, until) = (Arc::clone(api), shutdown.clone());
    tasks.spawn("API keys", async move {
        let pools = (&of_api.pool, &keys_listening);
        known_keys::keep(&of_api.auth.keys, pools, of_api.config.flags_look(), &until).await
    });
    let (of_api, until) = (Arc::clone(api), shutdown.clone());
    tasks.spawn("use of API keys", async move {
        known_keys::note(&of_api.auth.keys, &of_api.pool, &of_api.clock, &until).await
    });
    let (of_api, until) = (Arc::clone(api), shutdown.clone());
    tasks.spawn("issuer", async move {
        until.run_until_cancelled(of_api.auth.keep_issuer()).await;
        until.cancelled().await;
        Ok(())
    });
}

fn open(settings: &Settings, connections_max: u32) -> anyhow::Result<Pool> {
    let store_settings = store::Settings { connections_max, ..store::Settings::new(&settings.database_url) };
    Pool::open(&store_settings, Role::Ingest).context("DATABASE_URL cannot be used")
}

/// What all doors share, before anything of it is known.
fn api(settings: &Settings, process: Process, acceptor: Acceptor, leaving: Leaving) -> anyhow::Result<Api> {
    let Process { readiness, clock, ids } = process;
    readiness.expect(&["postgres", "kafka", "registry", "flows"]);
    let pool = open(settings, settings.config.connections_max.saturating_sub(ACCEPTOR_CONNECTIONS).max(1))?;
    let registry = Registry::new(&settings.bus.registry_url, None).context("SCHEMA_REGISTRY_URL cannot be used")?;
    let recent = RecentJobs::new(settings.config.recent_jobs_max, recent::BYTES_MAX);
    Ok(Api {
        auth: Auth::new(&settings.auth)?,
        documents: Documents::open(&settings.documents, readiness.clone())?,
        projected: Projected::default(),
        flags: KnownFlags::default(),
        callers: Callers::default(),
        proxy: Proxy::new(&settings.config, settings.env.clone(), ids.clone())?,
        guard: Guard::new(settings.allowed.clone()),
        estimates: Estimates::default(),
        polls: Polls::default(),
        quotas: Quotas::new(settings.config.limits()?),
        whole_batches: Arc::new(Semaphore::new(batch::room_kib(settings.config.whole_batches_bytes_max))),
        reports: Reports::default(),
        streams: Streams::new(&settings.config),
        bus: settings.bus.clone(),
        reports_out: ReportsOut::new(&settings.bus)?,
        config: settings.config.clone(),
        public_url: PublicUrl::new(&settings.public_url),
        callback_secrets: settings.callback_secrets.clone(),
        trigger_secrets: settings.env.secrets.clone(),
        clock,
        ids,
        acceptor,
        reader: Reader::new(registry),
        records: SingleRecords::new(&settings.bus)?,
        catalog: Catalog::default(),
        cancels: cancels::Cancels::new(recent.clone()),
        recent,
        leaving,
        pool,
        readiness,
        dev_capacity: settings.bus.dev_capacity(&settings.topics),
        backpressure: Backpressure::new(settings.config.queue_age_max_s),
        planner: OnceLock::new(),
    })
}

/// Loads flows and schemas, opens the doors, then follows flows, events and commands.
async fn follow_kafka(settings: Settings, api: Arc<Api>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (reader, readiness, ids) = (&api.reader, &api.readiness, &api.ids);
    let topics = settings.topics.clone();
    let Some(writers) = until_ok("registry", readiness, ids, &shutdown, || reader.writer_ids(&topics)).await else {
        return Ok(());
    };
    // The tail begins before the doors open, so that it misses no event of a job that came through them.
    let events_topic = topics.events();
    let tail = || Tail::start(&settings.bus, &events_topic, TAIL_FETCH_WAIT_MAX);
    let Some(tail) = until_ok("kafka", readiness, ids, &shutdown, tail).await else { return Ok(()) };
    // Read from before the tail's start, so that no answer is older than one of an earlier process.
    let projected = || store::offsets::projected(&api.pool, &events_topic);
    let Some(projected) = until_ok("postgres", readiness, ids, &shutdown, projected).await else { return Ok(()) };
    let projected = projected.into_iter().collect();
    let look_back = || look_back(&settings.bus, &events_topic, &projected, &api);
    if until_ok("kafka", readiness, ids, &shutdown, look_back).await.is_none() {
        return Ok(());
    }
    let flows_topic = topics.flows();
    let load = || Table::load(&settings.bus, &flows_topic);
    let Some((flows, more_flows)) = until_ok("kafka", readiness, ids, &shutdown, load).await else {
        return Ok(());
    };
    flows.iter().for_each(|record| learn(&api.catalog, record));
    // A flow that was applied a moment ago may still be in the outbox. The doors open only when it is known too.
    let stored = || store::flows::all(&api.pool);
    let Some(stored) = until_ok("postgres", readiness, ids, &shutdown, stored).await else { return Ok(()) };
    stored.into_iter().for_each(|applied| api.catalog.learn_stored(applied));
    let flags = || store::flags::all(&api.pool);
    let Some(flags) = until_ok("postgres", readiness, ids, &shutdown, flags).await else { return Ok(()) };
    api.flags.learn(flags);
    let keys = || api.auth.keys.refresh(&api.pool);
    if until_ok("postgres", readiness, ids, &shutdown, keys).await.is_none() {
        return Ok(());
    }
    let (tools, cancels_topic) = ((readiness, ids, reader), topics.cancels());
    let cancels = cancels::load(&api.cancels, tools, (&settings.bus, &cancels_topic), &shutdown).await;
    let Some(cancels) = cancels else { return Ok(()) };
    let retention_ms = i64::from(settings.config.idempotency_retention_h) * events::time::HOUR_MS;
    let writer = Writer { topics: topics.clone(), ids: writers };
    let planner = Planner { writer, idempotency_retention_ms: retention_ms };
    let _ = api.planner.set(planner.clone());
    // Nothing is said to be ready before the doors are open.
    readiness.report("flows", addresses(&api.catalog)).ok();
    let caller = settings.config.commands_caller();
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn("flows tail", follow_flows(more_flows, Arc::clone(&api), shutdown.clone()));
    let (of_api, bus, until) = (Arc::clone(&api), settings.bus.clone(), shutdown.clone());
    tasks.spawn("cancels tail", async move {
        let tools = (&of_api.readiness, &of_api.ids, &of_api.reader);
        let following = cancels::follow(&of_api.cancels, tools, &bus, cancels, &until);
        until.run_until_cancelled(following).await;
        Ok(())
    });
    let (of_api, bus, until) = (Arc::clone(&api), settings.bus.clone(), shutdown.clone());
    tasks.spawn("progress tail", async move {
        let tools = (&of_api.reader, &of_api.ids);
        progress::follow((&of_api.reports, &of_api.recent, &of_api.streams), tools, (&bus, &topics.progress()), &until)
            .await
    });
    let (of_api, until) = (Arc::clone(&api), shutdown.clone());
    tasks.spawn("open jobs", async move {
        open_jobs::keep(&of_api.quotas.open_jobs, (&of_api.pool, &of_api.reader), &events_topic, &until).await
    });
    let triggers = triggers::keep(Arc::clone(&api), planner.clone(), settings.clone(), shutdown.clone());
    tasks.spawn("triggers", triggers);
    tasks.spawn("events tail", watch_events(tail, Arc::clone(&api), shutdown.clone()));
    tasks.spawn("commands", take_commands(settings, Commands { api, planner, caller, is_waiting: false }, shutdown));
    tasks.join().await
}

/// Reads the latest events, if possible from where the projection is.
async fn look_back(
    bus: &bus::Settings,
    topic: &str,
    projected: &HashMap<i32, i64>,
    api: &Api,
) -> Result<(), bus::Error> {
    let Api { recent, streams, quotas, .. } = api;
    let logs = Admin::new(bus)?.offsets(&[topic.to_owned()]).await?;
    let begins: HashMap<i32, i64> = logs.iter().map(|(place, (begin, _))| (place.partition, *begin)).collect();
    let lag = |(place, (_, end)): (&TopicPartition, &(i64, i64))| end - projected.get(&place.partition).unwrap_or(&0);
    let back = logs.iter().map(lag).max().unwrap_or(0).clamp(BACKLOG_OFFSETS, BACKLOG_OFFSETS_MAX);
    let saw = |records: Vec<Inbound>| {
        for record in records {
            streams.saw(Seen::of(&record));
            quotas.open_jobs.saw(&record);
            recent.saw(record);
        }
    };
    let (starts, _) = Table::stream_recent(bus, topic, back, saw).await?;
    let starts = starts.into_iter().zip(0..).map(|(start, partition)| (partition, start));
    streams.begun_at(starts.clone());
    quotas.open_jobs.begun_at(starts.clone());
    // Events that are not on Kafka any more are not waited for: nobody can read them.
    recent.begun_at(starts.filter(|(partition, start)| begins.get(partition) != Some(start)).collect());
    Ok(())
}

async fn watch_events(mut tail: Tail, api: Arc<Api>, shutdown: CancellationToken) -> anyhow::Result<()> {
    while let Some(Some(records)) = shutdown.run_until_cancelled(tail.next()).await {
        for record in records {
            let seen = Seen::of(&record);
            api.quotas.open_jobs.saw(&record);
            let ended = api.recent.saw(record);
            // Whoever opens a stream in between finds the event among the recent ones.
            api.streams.saw(seen);
            if let Some(job) = ended {
                api.reports.forget(job);
                api.reports_out.forget(job);
            }
        }
        api.streams.saw_all();
    }
    if shutdown.is_cancelled() { Ok(()) } else { anyhow::bail!("the events tail has ended") }
}

async fn take_commands(settings: Settings, commands: Commands, shutdown: CancellationToken) -> anyhow::Result<()> {
    let options = FollowerOptions::new(settings.topics.ingest_group(), [settings.topics.commands()]);
    let inbox = Inbox::new(settings.bus, commands.api.pool.clone(), commands.api.readiness.clone());
    let outcome = inbox.run(options, commands, &shutdown).await;
    outcome.context("reading commands: see docs/runbooks/offset-out-of-range.md where an offset is not in the log")
}
