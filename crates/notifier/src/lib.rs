//! Tells of jobs' events by webhooks, and logs the end of each job.
//!
//! Promise: an event of a job is told at every endpoint that wanted it when it was taken in, at least once, or is given
//! up in the log of deliveries. One event has one `webhook-id` at an endpoint. Those of one job come in their order;
//! one that is given up holds back no later one. No receiver delays another.
//!
//! Read `take_in` (events to deliveries), `deliver` (the loop), `send` (one attempt), `schedule` (what its answer
//! means), `requests` (pings, and deliveries once more), `payload`, `upkeep`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bus::FollowerOptions;
use events::topic::Topics;
use inbox::Inbox;
use outbound::Allowed;
use process::{Base, Process};
use service_kit::config::{ConfigError, Sources, load};
use service_kit::tasks::Tasks;
use store::{Pool, Role};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub mod config;
mod deliver;
mod payload;
mod requests;
mod schedule;
mod send;
mod take_in;
mod upkeep;

use crate::config::Config;
use crate::deliver::Deliver;
use crate::requests::Requests;
use crate::schedule::Schedule;
use crate::send::Sender;
use crate::take_in::TakeIn;

/// The service's needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Kafka and the registry.
    pub bus: bus::Settings,
    /// The names of topics.
    pub topics: Topics,
    /// Postgres.
    pub database_url: String,
    /// The address at which callers reach the API, for links; may be empty.
    pub public_url: String,
    /// Addresses beside the public internet that may be called.
    pub allowed: Allowed,
    /// The service's own settings.
    pub config: Config,
}

impl Settings {
    /// # Errors
    /// The first setting that is missing or cannot be used.
    pub fn load(base: &Base, sources: &Sources) -> Result<Self, ConfigError> {
        Ok(Self {
            bus: base.bus.clone(),
            topics: base.topics.clone(),
            database_url: base.database_url()?,
            public_url: base.shared.public_url.trim_end_matches('/').to_owned(),
            allowed: Allowed::load(&base.shared.webhooks)?,
            config: load(config::SECTION, config::DEFAULT, sources)?,
        })
    }
}

/// Runs until shutdown.
///
/// # Errors
/// Only errors that a retry does not mend: a setting that cannot be used, an offset that is no longer in the log.
pub async fn run(settings: Settings, process: Process, shutdown: CancellationToken) -> anyhow::Result<()> {
    process.readiness.expect(&["postgres", "kafka", "registry"]);
    let config = &settings.config;
    let pool = open(&settings, config.connections_max)?;
    let wake = Arc::new(Notify::new());
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn("deliver", deliver(&settings, &pool, &wake, &process)?.run(shutdown.clone()));
    let requests = Requests {
        pool: pool.clone(),
        listening: open(&settings, 1)?,
        wake: Arc::clone(&wake),
        readiness: process.readiness.clone(),
        clock: process.clock.clone(),
        ids: process.ids.clone(),
    };
    tasks.spawn("requests", requests.run(shutdown.clone()));
    let readiness = &process.readiness;
    let keep = (pool.clone(), config.keep_deliveries_d);
    tasks.spawn("upkeep", upkeep::run(keep, readiness.clone(), shutdown.clone()));
    let every = Duration::from_millis(config.figures_interval_ms);
    if !every.is_zero() {
        tasks.spawn("figures", upkeep::count((pool.clone(), every), readiness.clone(), shutdown.clone()));
    }
    tasks.spawn("take in", take_in(settings, pool, wake, process, shutdown));
    tasks.join().await
}

fn open(settings: &Settings, connections_max: u32) -> anyhow::Result<Pool> {
    let store_settings = store::Settings { connections_max, ..store::Settings::new(&settings.database_url) };
    Pool::open(&store_settings, Role::Notifier).context("DATABASE_URL cannot be used")
}

fn deliver(settings: &Settings, pool: &Pool, wake: &Arc<Notify>, process: &Process) -> anyhow::Result<Deliver> {
    let config = &settings.config;
    let timeout = Duration::from_millis(config.timeout_ms);
    let schedule = Schedule { pauses_s: config.schedule_s.clone(), retry_after_max_s: config.retry_after_max_s };
    Ok(Deliver {
        pool: pool.clone(),
        sender: Arc::new(Sender::new(settings.allowed.clone(), schedule, timeout, process.clock.clone())?),
        wake: Arc::clone(wake),
        readiness: process.readiness.clone(),
        clock: process.clock.clone(),
        ids: process.ids.clone(),
        timeout,
        deliveries_max: config.deliveries_max.max(1),
        per_endpoint_max: config.deliveries_per_endpoint_max.max(1),
        check_every: Duration::from_millis(config.check_ms),
        failing_max: Duration::from_secs(u64::from(config.disable_after_h) * 3_600),
    })
}

async fn take_in(
    settings: Settings,
    pool: Pool,
    wake: Arc<Notify>,
    process: Process,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Process { readiness, clock, ids } = process;
    let inbox = Inbox::new(settings.bus, pool.clone(), readiness);
    let topics = settings.topics;
    let Some((reader, _)) = inbox.reader(&topics, &ids, &shutdown).await? else { return Ok(()) };
    let options = FollowerOptions::new(topics.notifier_group(), [topics.events()]);
    let mut options = options.in_large_batches();
    options.batch_records_max = settings.config.batch_records_max;
    let take_in = TakeIn { reader, pool, wake, clock, ids, api_url: settings.public_url };
    inbox.run(options, take_in, &shutdown).await.context("following events")
}
