use events::time::DAY_MS;
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::id::JobId;
use sqlx::{AssertSqlSafe, Connection};
use store::acceptances::accept_batch;
use store::jobs::{ObservedEvent, get, project};
use store::kept_jobs::kept;
use store::{Pool, Retired, Role, acceptances, jobs};
use uuid::{Builder, Uuid};

use crate::database::{Database, acceptance, event};

pub(crate) const KEEP_MS: i64 = 30 * DAY_MS;

/// Days since the Unix epoch, so many days ago.
pub(crate) async fn day(database: &Database, ago: i64) -> i64 {
    let today = "select floor(extract(epoch from now()) / 86400)::bigint";
    let today: i64 = sqlx::query_scalar(today).fetch_one(&mut database.superuser().await).await.unwrap();
    today - ago
}

fn bound(day: i64) -> Uuid {
    Uuid::from_u128(u128::try_from(day * DAY_MS).unwrap() << 80)
}

/// Makes the partition of that day.
pub(crate) async fn make_partitions(database: &Database, day: i64) {
    for (table, owner) in [("ingest.acceptances", "meanwhile_ingest"), ("orchestrator.jobs", "meanwhile_orchestrator")]
    {
        let (partition, from, to) = (format!("{table}_p{day}"), bound(day), bound(day + 1));
        database
            .run(&format!(
                "create table {partition} partition of {table} for values from ('{from}') to ('{to}');
                 alter table {partition} owner to {owner}"
            ))
            .await;
    }
}

/// A job that was accepted on that day.
pub(crate) async fn accept(database: &Database, day: i64, number: u8) -> JobId {
    accept_with(&database.pool(Role::Ingest), day, number).await
}

async fn accept_with(pool: &Pool, day: i64, number: u8) -> JobId {
    let made_ms = u64::try_from(day * DAY_MS).unwrap() + u64::from(number);
    let job = JobId::new(Builder::from_unix_timestamp_millis(made_ms, &[number; 10]).into_uuid());
    let mut new = acceptance("old");
    new.acceptance.facts.job = job;
    accept_batch(pool, &[new]).await.unwrap();
    job
}

/// Projects the job: it came to this status so many days ago.
pub(crate) async fn project_one(
    database: &Database,
    job: JobId,
    cursor: i64,
    kind: EventKind,
    status: JobStatus,
    ago: i64,
) {
    let event = JobEvent { at_ms: day(database, ago).await * DAY_MS, ..event(job, kind, status, 1) };
    let mut tx = database.pool(Role::Orchestrator).begin().await.unwrap();
    project(&mut tx, &[ObservedEvent { partition: 0, cursor, trace_id: None, event }]).await.unwrap();
    tx.commit().await.unwrap();
}

/// Whether its acceptance and its projection are there.
pub(crate) async fn known(database: &Database, job: JobId) -> (bool, bool) {
    let stored = get(&database.pool(Role::Ingest), "acme", job).await.unwrap();
    stored.map_or((false, false), |stored| (stored.acceptance.is_some(), stored.projection.is_some()))
}

async fn retire_acceptances(database: &Database) -> Retired {
    acceptances::retire(&database.pool(Role::Ingest), KEEP_MS).await.unwrap()
}

async fn retire_jobs(database: &Database) -> Retired {
    jobs::retire(&database.pool(Role::Orchestrator), KEEP_MS).await.unwrap()
}

fn nothing() -> (Retired, Retired) {
    (Retired::default(), Retired::default())
}

#[tokio::test]
async fn a_day_goes_once_it_is_old_and_jobs_that_are_still_needed_stay() {
    let database = Database::fresh().await;
    let old = day(&database, 100).await;
    make_partitions(&database, old).await;
    let [ended, parked, ended_late, unseen] = [
        accept(&database, old, 1).await,
        accept(&database, old, 2).await,
        accept(&database, old, 3).await,
        accept(&database, old, 4).await,
    ];
    project_one(&database, ended, 1, EventKind::JobSucceeded, JobStatus::Succeeded, 99).await;
    project_one(&database, parked, 2, EventKind::JobParked, JobStatus::NeedsAttention, 99).await;
    project_one(&database, ended_late, 3, EventKind::JobFailed, JobStatus::Failed, 1).await;
    assert_eq!(database.count("only ingest.acceptances_default").await, 0);
    assert_eq!(database.count("only orchestrator.jobs_default").await, 0);

    let partitions = vec![format!("ingest.acceptances_p{old}")];
    assert_eq!(retire_acceptances(&database).await, Retired { partitions, moved_rows: 3, ..Retired::default() });
    let partitions = vec![format!("orchestrator.jobs_p{old}")];
    assert_eq!(retire_jobs(&database).await, Retired { partitions, moved_rows: 2, ..Retired::default() });
    let mut found = Vec::new();
    for job in [ended, parked, ended_late, unseen] {
        found.push(known(&database, job).await);
    }
    assert_eq!(found, [(false, false), (true, true), (true, true), (true, false)]);
    assert_eq!((retire_acceptances(&database).await, retire_jobs(&database).await), nothing());

    // The parked job goes on, ends, and is kept for its time; then it goes row by row.
    project_one(&database, parked, 9, EventKind::JobFailed, JobStatus::Failed, 29).await;
    assert_eq!((retire_acceptances(&database).await, retire_jobs(&database).await), nothing());
    database.run("update orchestrator.jobs set updated_at = updated_at - interval '3 days'").await;
    let one_row = Retired { default_rows: 1, ..Retired::default() };
    assert_eq!((retire_acceptances(&database).await, retire_jobs(&database).await), (one_row.clone(), one_row));
    assert_eq!(known(&database, parked).await, (false, false));
    assert_eq!(known(&database, ended_late).await, (true, true));
}

#[tokio::test]
async fn events_beside_a_row_go_with_it() {
    let database = Database::fresh().await;
    let old = day(&database, 100).await;
    make_partitions(&database, old).await;
    let (gone, parked) = (accept(&database, old, 1).await, accept(&database, old, 2).await);
    let recent = accept(&database, day(&database, 0).await, 3).await;
    for job in [gone, parked, recent] {
        for cursor in 0..40 {
            project_one(&database, job, cursor, EventKind::JobParked, JobStatus::NeedsAttention, 99).await;
        }
    }
    project_one(&database, gone, 40, EventKind::JobFailed, JobStatus::Failed, 99).await;
    let beside = |job: JobId| format!("orchestrator.job_events where job = '{}'", job.uuid());
    assert!(database.count(&beside(gone)).await > 0);
    let before = database.count(&beside(parked)).await;
    assert_eq!(retire_jobs(&database).await.moved_rows, 1);
    assert_eq!(database.count(&beside(gone)).await, 0);
    assert_eq!((database.count(&beside(parked)).await, database.count(&beside(recent)).await), (before, before));
    let stored = get(&database.pool(Role::Ingest), "acme", parked).await.unwrap().unwrap();
    assert_eq!(stored.projection.unwrap().history.len(), 40);
}

#[tokio::test]
async fn an_acceptance_goes_before_its_projection_and_also_when_that_went_first() {
    let database = Database::fresh().await;
    let (just, long_ago) = (day(&database, 31).await, day(&database, 50).await);
    for day in [just, long_ago] {
        make_partitions(&database, day).await;
    }
    let (first, second) = (accept(&database, just, 1).await, accept(&database, long_ago, 1).await);
    project_one(&database, first, 1, EventKind::JobSucceeded, JobStatus::Succeeded, 31).await;
    project_one(&database, second, 2, EventKind::JobSucceeded, JobStatus::Succeeded, 50).await;
    assert_eq!(retire_jobs(&database).await.partitions, [format!("orchestrator.jobs_p{long_ago}")]);
    assert_eq!((known(&database, first).await, known(&database, second).await), ((true, true), (true, false)));
    let dropped = retire_acceptances(&database).await;
    assert_eq!(dropped.partitions, [long_ago, just].map(|day| format!("ingest.acceptances_p{day}")));
    assert_eq!(dropped.moved_rows, 0);
    assert_eq!((known(&database, first).await, known(&database, second).await), ((false, true), (false, false)));
}

#[tokio::test]
async fn a_day_that_is_not_old_and_one_that_somebody_writes_stay() {
    let database = Database::fresh().await;
    let (old, recent) = (day(&database, 100).await, day(&database, 29).await);
    for day in [old, recent] {
        make_partitions(&database, day).await;
        let job = accept(&database, day, 1).await;
        project_one(&database, job, 1, EventKind::JobSucceeded, JobStatus::Succeeded, 90).await;
    }
    let mut writer = database.superuser().await;
    let mut tx = writer.begin().await.unwrap();
    let writing =
        AssertSqlSafe(format!("update orchestrator.jobs set status = 'running' where job < '{}'", bound(old + 1)));
    sqlx::query(writing).execute(&mut *tx).await.unwrap();
    assert_eq!(retire_jobs(&database).await, Retired { postponed: 1, ..Retired::default() });
    tx.commit().await.unwrap();
    let dropped = retire_jobs(&database).await;
    assert_eq!((dropped.partitions.len(), dropped.moved_rows), (1, 1), "it runs again, as far as anybody knows");
    assert_eq!(database.count("orchestrator.jobs").await, 2);
}

/// The number of connections that wait for a lock of this kind on a table.
fn waiting(table: &str, mode: &str) -> String {
    format!("pg_locks where not granted and mode = '{mode}' and relation = '{table}'::regclass")
}

#[tokio::test]
async fn nobody_waits_while_a_day_is_looked_through() {
    let database = Database::fresh().await;
    let old = day(&database, 100).await;
    make_partitions(&database, old).await;
    let ended = accept(&database, old, 1).await;
    project_one(&database, ended, 1, EventKind::JobSucceeded, JobStatus::Succeeded, 90).await;
    // Holds the look for needed acceptances up, which reads the projection.
    let mut blocking = database.superuser().await;
    let mut block = blocking.begin().await.unwrap();
    sqlx::query("lock table orchestrator.jobs in access exclusive mode").execute(&mut *block).await.unwrap();
    let retiring = tokio::spawn({
        let pool = database.pool(Role::Ingest);
        async move { acceptances::retire(&pool, KEEP_MS).await.unwrap() }
    });
    let looks = async || (database.count(&waiting("orchestrator.jobs", "AccessShareLock")).await > 0).then_some(());
    test_kit::eventually(std::time::Duration::from_secs(60), "the day is looked through", looks).await;
    let pool = database.pool(Role::Ingest);
    let late = accept_with(&pool, old, 2).await;
    block.rollback().await.unwrap();
    let retired = retiring.await.unwrap();
    assert_eq!((retired.partitions.len(), retired.moved_rows), (1, 1));
    assert_eq!(known(&database, late).await, (true, false));
}

#[tokio::test]
async fn a_job_that_is_written_after_its_day_was_looked_through_stays() {
    let database = Database::fresh().await;
    let old = day(&database, 100).await;
    make_partitions(&database, old).await;
    let ended = accept(&database, old, 1).await;
    project_one(&database, ended, 1, EventKind::JobSucceeded, JobStatus::Succeeded, 90).await;
    // Lets everything in but the drop, which comes after the look.
    let mut reading = database.superuser().await;
    let mut reader = reading.begin().await.unwrap();
    sqlx::query("lock table only ingest.acceptances in access share mode").execute(&mut *reader).await.unwrap();
    let retiring = tokio::spawn({
        let pool = database.pool(Role::Ingest);
        async move { acceptances::retire(&pool, KEEP_MS).await.unwrap() }
    });
    let waits = async || {
        let waits = database.count(&waiting("ingest.acceptances", "AccessExclusiveLock")).await > 0;
        (waits || retiring.is_finished()).then_some(())
    };
    test_kit::eventually(std::time::Duration::from_secs(60), "the drop waits for its lock", waits).await;
    let late = accept(&database, old, 2).await;
    reader.rollback().await.unwrap();
    // On a slow machine the drop may have given up before.
    let retired = [retiring.await.unwrap(), retire_acceptances(&database).await];
    assert_eq!(retired.iter().map(|retired| retired.moved_rows).sum::<u64>(), 1);
    assert_eq!((known(&database, ended).await, known(&database, late).await), ((false, true), (true, false)));
    assert_eq!(database.count("ingest.late_writes").await, 0);
}

#[tokio::test]
async fn days_are_made_ahead_and_jobs_find_theirs() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    assert_eq!(jobs::ensure_partitions(&pool, 2).await.unwrap(), 3);
    assert_eq!(jobs::ensure_partitions(&pool, 2).await.unwrap(), 0);
    let today = day(&database, 0).await;
    let job = accept(&database, today, 1).await;
    project_one(&database, job, 1, EventKind::JobAccepted, JobStatus::Accepted, 0).await;
    project_one(&database, job, 2, EventKind::JobSucceeded, JobStatus::Succeeded, 0).await;
    assert_eq!(database.count(&format!("only orchestrator.jobs_p{today}")).await, 1);
    let stored = get(&database.pool(Role::Ingest), "acme", job).await.unwrap().unwrap();
    assert_eq!(stored.projection.unwrap().history.len(), 2);
}

#[tokio::test]
async fn what_belongs_to_jobs_is_needed_as_long_as_they_are_known() {
    let database = Database::fresh().await;
    let today = day(&database, 0).await;
    make_partitions(&database, today).await;
    let (open, ended) = (accept(&database, today, 1).await, accept(&database, today, 2).await);
    project_one(&database, ended, 1, EventKind::JobSucceeded, JobStatus::Succeeded, 0).await;
    let unknown = JobId::new(bound(today));
    let found = kept(&database.pool(Role::Ingest), &[unknown, open, ended]).await.unwrap();
    let mut found: Vec<_> = found.into_iter().map(|job| (job.job, job.flow, job.seen)).collect();
    found.sort_by_key(|(job, ..)| job.uuid());
    let seen = Some((JobStatus::Succeeded, today * DAY_MS));
    assert_eq!(found, [(open, "order".to_owned(), None), (ended, "order".to_owned(), seen)]);
}
