//! Figures for docs/performance.md: how fast jobs are projected, and what ten million stored ones cost. They print, and
//! are run by hand (CONTRIBUTING.md).

use std::time::{Duration, Instant};

use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use sqlx::PgConnection;
use store::acceptances::accept_batch;
use store::jobs::{ObservedEvent, get, project};
use store::{Pool, Role, acceptances, holds, jobs, outbox};
use uuid::Builder;

use crate::database::{Database, acceptance, event};
use crate::generated;

/// As many jobs as a month at four a second.
const JOBS: i64 = 10_000_000;
/// As `orchestrator.batch_records_max`.
const BATCH: usize = 1_000;
const DAY_MS: i64 = events::time::DAY_MS;

/// A job of today.
fn job(number: u64) -> JobId {
    let random = [number.to_be_bytes().as_slice(), &[7, 7]].concat().try_into().unwrap();
    let now_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    JobId::new(Builder::from_unix_timestamp_millis(u64::try_from(now_ms).unwrap(), &random).into_uuid())
}

/// Events of so many jobs, in rounds: each round has one event of every job.
fn rounds(jobs: u64, events: u32) -> Vec<ObservedEvent> {
    let jobs: Vec<JobId> = (0..jobs).map(job).collect();
    let kind = |hop| match hop {
        0 => (EventKind::JobAccepted, JobStatus::Accepted),
        hop if hop + 1 == events => (EventKind::JobSucceeded, JobStatus::Succeeded),
        _ => (EventKind::StepSucceeded, JobStatus::Running),
    };
    let of_round = |hop| jobs.iter().map(move |job| (hop, *job, kind(hop)));
    let told = (0..events).flat_map(of_round).zip(0..);
    told.map(|((hop, job, (kind, status)), cursor)| ObservedEvent {
        partition: 0,
        cursor,
        trace_id: None,
        event: event(job, kind, status, hop),
    })
    .collect()
}

async fn apply(pool: &Pool, batch: &[ObservedEvent]) {
    let mut tx = pool.begin().await.unwrap();
    project(&mut tx, batch).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
#[ignore = "prints figures"]
async fn events_projected_per_second() {
    // Whole jobs in a batch, as they come at full load; each event in another batch; and jobs that retry for long.
    for (name, jobs, events, whole) in [
        ("jobs of 5 events, whole", 40_000, 5, true),
        ("jobs of 5 events, apart", 40_000, 5, false),
        ("jobs of 12 events, apart", 10_000, 12, false),
        ("jobs of 400 events, apart", 500, 400, false),
    ] {
        let database = Database::fresh().await;
        let pool = database.pool(Role::Orchestrator);
        jobs::ensure_partitions(&pool, 1).await.unwrap();
        let mut told = rounds(jobs, events);
        if whole {
            told.sort_by_key(|observed| (observed.event.job, observed.cursor));
        }
        let started = Instant::now();
        for batch in told.chunks(BATCH) {
            apply(&pool, batch).await;
        }
        println!("{name}: {:.0} events/s", told.len() as f64 / started.elapsed().as_secs_f64());
    }
}

/// Runs something again and again, and returns the longest time that it took until the other is done.
async fn longest(until: impl Future<Output = ()>, probe: impl AsyncFn()) -> Duration {
    let mut until = std::pin::pin!(until);
    let mut longest = Duration::ZERO;
    loop {
        let started = Instant::now();
        let both = async {
            probe().await;
            started.elapsed()
        };
        tokio::select! {
            biased;
            took = both => longest = longest.max(took),
            () = &mut until => return longest,
        }
    }
}

async fn timed<T>(name: &str, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let outcome = work.await;
    println!("{name}: {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    outcome
}

/// The times that a status takes.
async fn print_times(name: &str, pool: &Pool, tenant: &str, jobs: &[JobId]) {
    let mut took = Vec::with_capacity(jobs.len());
    for job in jobs {
        let started = Instant::now();
        get(pool, tenant, *job).await.unwrap();
        took.push(started.elapsed());
    }
    took.sort();
    println!("{name}: p50 {:?}, p99 {:?}", took[took.len() / 2], took[took.len() * 99 / 100]);
}

/// What happens all the time: jobs of today are accepted, projected, and asked for. In turns on both databases, since
/// the machine is not equally fast at all times.
async fn print_rates(empty: &Database, full: &Database) {
    for database in [empty, full] {
        acceptances::ensure_partitions(&database.pool(Role::Ingest), 1).await.unwrap();
        jobs::ensure_partitions(&database.pool(Role::Orchestrator), 1).await.unwrap();
    }
    for round in 1..=5 {
        for (name, database) in [("empty", empty), ("full", full)] {
            print_round(&format!("{name}, round {round}"), database).await;
        }
    }
}

async fn print_round(name: &str, database: &Database) {
    let (ingest, orchestrator) = (database.pool(Role::Ingest), database.pool(Role::Orchestrator));
    let started = Instant::now();
    for _ in 0..500 {
        let batch: Vec<_> = (0..20).map(|_| acceptance("meanwhile")).collect();
        accept_batch(&ingest, &batch).await.unwrap();
    }
    println!("{name}: {:.0} acceptances/s", 10_000.0 / started.elapsed().as_secs_f64());
    let told = rounds(20_000, 5);
    let started = Instant::now();
    for batch in told.chunks(BATCH) {
        apply(&orchestrator, batch).await;
    }
    println!("{name}: {:.0} events/s", told.len() as f64 / started.elapsed().as_secs_f64());
    let today: std::collections::BTreeSet<JobId> = (0..5_000).map(|number| told[number * 4].event.job).collect();
    print_times(&format!("{name}: status of today's"), &ingest, "acme", &today.into_iter().collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn a_hundred_thousand_holds_within_a_minute() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    generated::fill(&database, 1_000_000).await;
    let mut connection = database.superuser().await;
    let due =
        "update orchestrator.holds set release_at = now() - random() * interval '1 minute' where reason = 'backoff'";
    let holds = sqlx::query(due).execute(&mut connection).await.unwrap().rows_affected();
    sqlx::query("vacuum analyze orchestrator.holds").execute(&mut connection).await.unwrap();
    let (started, mut released) = (Instant::now(), 0);
    loop {
        let holds = store::lanes::release_due(&pool, 500).await.unwrap().holds;
        released += u64::from(holds);
        if holds == 0 {
            break;
        }
    }
    let rate = released as f64 / started.elapsed().as_secs_f64();
    println!("{released} of {holds} holds released, {rate:.0}/s");
}

/// The ids of some jobs all over the days.
async fn some_jobs(connection: &mut PgConnection) -> Vec<JobId> {
    let ids = "select job from orchestrator.jobs tablesample system (0.01) limit 1000";
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar(ids).fetch_all(connection).await.unwrap();
    ids.into_iter().map(JobId::new).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and 15 GB"]
async fn ten_million_jobs() {
    let empty = Database::fresh().await;
    generated::fill(&empty, 1_000).await;
    let database = Database::fresh().await;
    timed("filling", generated::fill(&database, JOBS)).await;
    let (ingest, orchestrator) = (database.pool(Role::Ingest), database.pool(Role::Orchestrator));
    let mut connection = database.superuser().await;
    let size: String = sqlx::query_scalar("select pg_size_pretty(pg_database_size(current_database()))")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    println!("size: {size}");
    print_times("status of any, as read from the disk", &ingest, "default", &some_jobs(&mut connection).await).await;
    // What the filling left to be done is not part of it.
    sqlx::query("vacuum analyze").execute(&mut connection).await.unwrap();
    sqlx::query("checkpoint").execute(&mut connection).await.unwrap();
    print_rates(&empty, &database).await;
    timed("counting 1,000,000 holds", async { holds::count_by_reason(&orchestrator).await.unwrap() }).await;
    timed("releasing 500 holds", async { store::lanes::release_due(&orchestrator, 500).await.unwrap() }).await;
    timed("oldest row of the outbox", async { outbox::oldest_age_ms(&database.pool(Role::Relay), 0).await.unwrap() })
        .await;

    let old = some_old_job(&mut connection).await;
    let probe = async || {
        let mut tx = orchestrator.begin().await.unwrap();
        let late = ObservedEvent { partition: 0, cursor: next_cursor(), trace_id: None, event: old.clone() };
        project(&mut tx, &[late]).await.unwrap();
        tx.commit().await.unwrap();
        accept_batch(&ingest, &[acceptance("meanwhile")]).await.unwrap();
    };
    // Without any upkeep, so that the machine's own pauses are known.
    let idle = async {
        sqlx::query("select pg_sleep(10)").execute(&mut connection).await.unwrap();
    };
    println!("longest pause while nothing else happens: {:?}", longest(idle, &probe).await);
    let days = async {
        jobs::ensure_partitions(&orchestrator, 3).await.unwrap();
        acceptances::ensure_partitions(&ingest, 3).await.unwrap();
    };
    println!("longest pause while partitions are made: {:?}", longest(days, &probe).await);
    let started = Instant::now();
    let retiring = async {
        let acceptances = acceptances::retire(&ingest, 30 * DAY_MS).await.unwrap();
        let jobs = jobs::retire(&orchestrator, 30 * DAY_MS).await.unwrap();
        for retired in [acceptances, jobs] {
            let (days, postponed, moved) = (retired.partitions.len(), retired.postponed, retired.moved_rows);
            println!("dropped {days} days, postponed {postponed}, moved {moved} rows");
        }
    };
    let pause = longest(retiring, &probe).await;
    println!("retiring took {:?}; longest pause meanwhile {pause:?}", started.elapsed());
}

fn next_cursor() -> i64 {
    use std::sync::atomic::{AtomicI64, Ordering};
    static CURSOR: AtomicI64 = AtomicI64::new(1 << 40);
    CURSOR.fetch_add(1, Ordering::Relaxed)
}

/// A late event of a parked job of the first day.
async fn some_old_job(connection: &mut PgConnection) -> flow::event::JobEvent {
    let oldest = "select job from orchestrator.jobs where status = 'needs_attention' order by job limit 1";
    let job: uuid::Uuid = sqlx::query_scalar(oldest).fetch_one(connection).await.unwrap();
    event(JobId::new(job), EventKind::JobParked, JobStatus::NeedsAttention, 1)
}
