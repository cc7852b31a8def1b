use events::time::DAY_MS;
use flow::id::JobId;
use store::acceptances::accept_batch;
use store::flows::{Applied, all, apply, retire};
use store::{Pool, Role};
use uuid::Builder;

use crate::database::{Database, acceptance};

async fn applied(pool: &Pool, flow: &str, version: &str) -> Applied {
    let mut tx = pool.begin().await.unwrap();
    let applied = apply(&mut tx, flow, version, &format!("{{\"flow\":\"{flow}\"}}")).await.unwrap();
    tx.commit().await.unwrap();
    applied
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_durable_whatever_the_database_has_as_its_default() {
    let database = Database::fresh().await;
    let note = "create function note() returns trigger language plpgsql as
                $$ begin new.document = current_setting('synchronous_commit'); return new; end $$;
                create trigger note before insert on ingest.flows for each row execute function note();
                do $$ begin
                    execute format('alter database %I set synchronous_commit = off', current_database());
                end $$";
    database.run(note).await;
    let pool = database.pool(Role::Ingest);
    let mut tx = pool.begin().await.unwrap();
    apply(&mut tx, "order", "0123456789ab", "{}").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(all(&pool).await.unwrap()[0].document, "on");
}

#[tokio::test]
async fn the_flow_applied_last_has_the_highest_revision() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let mut revisions = Vec::new();
    for (flow, version) in [("order", "v1"), ("order", "v2"), ("refund", "v1"), ("order", "v1")] {
        match applied(&pool, flow, version).await {
            Applied::Changed { revision } => revisions.push(revision),
            Applied::Unchanged { .. } => panic!("{flow}@{version} was not active"),
        }
    }
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    assert_eq!(applied(&pool, "order", "v1").await, Applied::Unchanged { revision: revisions[3] });
    let flows = all(&pool).await.unwrap();
    let names: Vec<_> = flows.iter().map(|flow| (flow.flow.as_str(), flow.version.as_str())).collect();
    assert_eq!(names, [("order", "v2"), ("refund", "v1"), ("order", "v1")]);
    assert_eq!(flows[2].document, r#"{"flow":"order"}"#);
}

/// Makes a version look as if it was applied so many days ago.
async fn age(database: &Database, flow: &str, version: &str, days: f64) {
    let aged = format!("update ingest.flows set applied_at = now() - {days} * interval '1 day'");
    database.run(&format!("{aged} where flow = '{flow}' and version = '{version}'")).await;
}

async fn retired(pool: &Pool) -> Vec<String> {
    let mut tx = pool.begin().await.unwrap();
    let retired = retire(&mut tx, 30 * DAY_MS, 100).await.unwrap();
    tx.commit().await.unwrap();
    let mut names: Vec<String> = retired.into_iter().map(|gone| format!("{}@{}", gone.flow, gone.version)).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_version_goes_once_all_its_jobs_could_have_gone_and_the_active_one_stays() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    for (flow, version, days) in [
        ("order", "v1", 90.0),
        ("order", "v2", 40.0),
        ("order", "v3", 10.0),
        ("refund", "v1", 90.0),
        ("stock", "v1", 90.0),
    ] {
        applied(&pool, flow, version).await;
        age(&database, flow, version, days).await;
    }
    // Within the day in which an instance of ingest may not know of it.
    applied(&pool, "stock", "v2").await;
    age(&database, "stock", "v2", 30.5).await;
    assert_eq!(retired(&pool).await, ["order@v1"]);
    assert_eq!(retired(&pool).await, [""; 0]);
    age(&database, "stock", "v2", 31.5).await;
    age(&database, "order", "v3", 31.5).await;
    assert_eq!(retired(&pool).await, ["order@v2", "stock@v1"]);
    assert_eq!(all(&pool).await.unwrap().len(), 3);
    // One that went comes again as a new one.
    assert!(matches!(applied(&pool, "order", "v1").await, Applied::Changed { .. }));
}

#[tokio::test]
async fn a_version_stays_while_the_acceptance_of_a_job_on_it_is_kept() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    for (version, days) in [("v1", 90.0), ("v2", 60.0), ("v3", 50.0)] {
        applied(&pool, "order", version).await;
        age(&database, "order", version, days).await;
    }
    // It was accepted 70 days ago, and has not ended.
    let made = "(floor(extract(epoch from now())) - 70 * 86400)::bigint * 1000";
    let mut running = acceptance("running");
    let made_ms: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select {made}")))
        .fetch_one(&mut database.superuser().await)
        .await
        .unwrap();
    let made_ms = u64::try_from(made_ms).unwrap();
    running.acceptance.facts.job = JobId::new(Builder::from_unix_timestamp_millis(made_ms, &[7; 10]).into_uuid());
    accept_batch(&pool, &[running]).await.unwrap();
    assert_eq!(retired(&pool).await, ["order@v2"]);
    database.run("delete from ingest.acceptances").await;
    assert_eq!(retired(&pool).await, ["order@v1"]);
}
