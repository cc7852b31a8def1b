//! Holds, parked jobs, dead letters, and the projection of jobs from their events.
//!
//! Promise: the effects of a record are in Postgres exactly once (rule 3), a hold is released exactly once and not
//! before its time by Postgres' clock, and a parked job stays until an operator decides.
//!
//! Read `take_in` (records to values), `apply` (values to one transaction), `resume` (parked jobs that an operator
//! sends on), `cancels` (jobs that somebody wants cancelled), `release` (holds whose time has come), `lanes` (calls
//! that take long), `workers` (the workers that make them, and their loss), `breaker` and `breakers` (downstreams that
//! are not to be called), `later` (records of later versions), `stuck` (jobs that stand still),
//! `figures` (metrics of waiting work).

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bus::FollowerOptions;
use bus::admin::Admin;
use events::Writer;
use inbox::Inbox;
use process::{Process, ServiceSettings};
use service_kit::retry::until_ok;
use service_kit::tasks::Tasks;
use store::{Pool, Role};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

mod apply;
mod breaker;
mod breakers;
mod cancels;
pub mod config;
mod figures;
mod lanes;
mod later;
mod letters;
mod release;
mod resume;
mod signals;
mod stuck;
mod take_in;
mod trace;
mod upkeep;
mod workers;

use crate::apply::{OfBreakers, Orchestrator};
use crate::breakers::{Keeper, Teller};
use crate::cancels::Late;
use crate::figures::Queues;
use crate::stuck::Search;
use crate::take_in::TakeIn;
use crate::upkeep::Upkeep;
use crate::workers::Watch;

/// The service's needs.
pub type Settings = ServiceSettings<config::Config>;

/// Runs until shutdown.
///
/// # Errors
/// Only errors that a retry does not mend: a setting that cannot be used, an offset that is no longer in the log.
pub async fn run(settings: Settings, process: Process, shutdown: CancellationToken) -> anyhow::Result<()> {
    let readiness = process.readiness.clone();
    readiness.expect(&["postgres", "kafka", "registry"]);
    let mut store_settings = store::Settings::new(&settings.database_url);
    store_settings.connections_max = settings.config.connections_max;
    let pool = Pool::open(&store_settings, Role::Orchestrator).context("DATABASE_URL cannot be used")?;
    let hold_came = Arc::new(Notify::new());
    let mut tasks = Tasks::new(shutdown.clone());
    let release = release::Release {
        pool: pool.clone(),
        hold_came: Arc::clone(&hold_came),
        batch_max: settings.config.release_batch_max,
        check_every: Duration::from_millis(settings.config.release_check_ms),
        readiness: readiness.clone(),
    };
    tasks.spawn("release", release::run(release, shutdown.clone()));
    let every = Duration::from_millis(settings.config.figures_interval_ms);
    if !every.is_zero() {
        let queues = Queues::new(&settings.bus, &settings.topics, process.clock.clone())
            .context("KAFKA_BROKERS cannot be used")?;
        tasks.spawn("count queues", figures::count_queues(queues, every, shutdown.clone()));
        tasks.spawn("count holds", figures::count_holds(pool.clone(), every, shutdown.clone()));
    }
    let upkeep = Upkeep {
        pool: pool.clone(),
        admin: Admin::new(&settings.bus).context("KAFKA_BROKERS cannot be used")?,
        clock: process.clock.clone(),
        topics: settings.topics.clone(),
        keep_jobs_d: settings.config.keep_jobs_d,
        keep_waits_h: settings.config.keep_waits_h,
    };
    tasks.spawn("upkeep", upkeep.run(readiness.clone(), shutdown.clone()));
    tasks.spawn("take in", take_in(settings, pool, hold_came, process, shutdown));
    tasks.join().await
}

async fn take_in(
    settings: Settings,
    pool: Pool,
    hold_came: Arc<Notify>,
    process: Process,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Process { readiness, clock, ids } = process;
    let (topics, config) = (settings.topics, &settings.config);
    let [check_every, stuck_after] = [config.release_check_ms, config.stuck_after_ms].map(Duration::from_millis);
    let inbox = || Inbox::new(settings.bus.clone(), pool.clone(), readiness.clone());
    let Some((reader, writers)) = inbox().reader(&topics, &ids, &shutdown).await? else { return Ok(()) };
    // Made before the first job is projected: a row in the default partition would prevent the partition of its day.
    let days = || store::jobs::ensure_partitions(&pool, upkeep::DAYS_AHEAD);
    if until_ok("postgres", &readiness, &ids, &shutdown, days).await.is_none() {
        return Ok(());
    }
    let following = |group: String, followed: Vec<String>| {
        let mut options = FollowerOptions::new(group, followed).in_large_batches();
        options.batch_records_max = config.batch_records_max;
        options
    };
    // Each by itself: a projection that is behind keeps no token from its rest, and none from its release.
    let tokens = following(topics.waits_group(), vec![topics.waits()]);
    let told = vec![topics.events(), topics.cancels(), topics.flows(), topics.dead_letters()];
    let told = following(topics.orchestrator_group(), told);
    let writer = Writer { topics, ids: writers };
    let teller = Teller { topics: writer.topics.clone(), ids: ids.clone() };
    let keeper = Keeper {
        pool: pool.clone(),
        teller: teller.clone(),
        config: config.breakers,
        changed: Arc::default(),
        check_every,
        readiness: readiness.clone(),
    };
    let of_search = (&settings.bus, pool.clone(), writer.clone(), (clock.clone(), ids.clone()));
    let search = Search::new(of_search, stuck_after, &readiness).context("KAFKA_BROKERS cannot be used")?;
    let watch = Watch {
        pool: pool.clone(),
        writer: writer.clone(),
        ids,
        worker_lost: Arc::default(),
        batch_max: config.release_batch_max,
        check_every,
        readiness: readiness.clone(),
    };
    let late = Late::new(&pool, &writer.topics);
    let orchestrator = || Orchestrator {
        take_in: TakeIn { writer: writer.clone(), reader: reader.clone(), clock: clock.clone() },
        hold_came: Arc::clone(&hold_came),
        worker_lost: Arc::clone(&watch.worker_lost),
        cancel_came: Arc::clone(&late.cancel_came),
        stuck_after,
        breakers: OfBreakers { teller: teller.clone(), config: config.breakers, changed: Arc::clone(&keeper.changed) },
    };
    let leaving = shutdown.child_token();
    let follow = async |inbox: Inbox, options| {
        let outcome = inbox.run(options, orchestrator(), &leaving).await;
        leaving.cancel();
        outcome
    };
    let tokens = follow(inbox().telling_of_offsets_as("offsets of waits"), tokens);
    let watching = async {
        let (workers, breakers) = (workers::run(&watch, &leaving), breakers::run(&keeper, &leaving));
        tokio::join!(workers, breakers, stuck::run(&search, &leaving), cancels::close_late(&late, &leaving))
    };
    let (tokens, told, _) = tokio::join!(tokens, follow(inbox(), told), watching);
    tokens.context("following waits").and(told.context("following events and dead letters"))
}
