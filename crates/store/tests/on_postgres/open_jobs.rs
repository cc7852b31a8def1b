//! The count of jobs that are not over.

use std::collections::HashMap;

use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use store::jobs::{ObservedEvent, project};
use store::watched::LookMax;
use store::{Pool, Role};
use test_kit::eventually;

use crate::WITHIN;
use crate::database::{Database, event, job};

/// One of these jobs is over; so many are in all.
async fn make(pool: &Pool, flow: &str, cursor: &mut i64, count: usize) -> Vec<JobId> {
    let jobs: Vec<JobId> = (0..count).map(|_| job()).collect();
    let mut events: Vec<_> = jobs.iter().map(|job| (*job, EventKind::JobAccepted, JobStatus::Accepted)).collect();
    events.push((jobs[1], EventKind::JobFailed, JobStatus::Failed));
    write(pool, flow, cursor, events).await;
    jobs
}

async fn write(pool: &Pool, flow: &str, cursor: &mut i64, events: Vec<(JobId, EventKind, JobStatus)>) {
    let seen = |(job, kind, status)| {
        *cursor += 1;
        let mut event = event(job, kind, status, u32::from(kind.ends_job()));
        flow.clone_into(&mut event.facts.flow);
        ObservedEvent { partition: 1, cursor: *cursor, trace_id: None, event }
    };
    let events: Vec<_> = events.into_iter().map(seen).collect();
    let mut tx = pool.begin().await.unwrap();
    project(&mut tx, &events).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn jobs_that_are_not_over_are_counted_wherever_the_search_for_stuck_ones_is() {
    let database = Database::fresh().await;
    let (orchestrator, ingest) = (database.pool(Role::Orchestrator), database.pool(Role::Ingest));
    let count = async || store::open_jobs::count(&ingest, "t.events", 2).await.unwrap().counts;
    assert!(count().await.is_empty());
    let mut cursor = 0;
    let early = make(&orchestrator, "order", &mut cursor, 7).await;
    make(&orchestrator, "refund", &mut cursor, 4).await;
    let of = |flow: &str, jobs| (("acme".to_owned(), flow.to_owned()), jobs);
    assert_eq!(count().await, HashMap::from([of("order", 6), of("refund", 3)]), "the search has not begun");
    eventually(WITHIN, "the search has come to the end", async || {
        let max = LookMax { jobs: 100, stuck_after_ms: 0, again_after_ms: 60_000 };
        store::watched::look(&orchestrator, max).await.unwrap();
        (database.count("orchestrator.watched").await == 9).then_some(())
    })
    .await;
    let end = |job| (job, EventKind::JobSucceeded, JobStatus::Succeeded);
    write(&orchestrator, "order", &mut cursor, vec![end(early[0])]).await;
    let late = make(&orchestrator, "order", &mut cursor, 5).await;
    assert_eq!(count().await, HashMap::from([of("order", 9), of("refund", 3)]));
    // The walk may have passed it: it is watched although it comes later.
    let mut tx = orchestrator.begin().await.unwrap();
    store::watched::add(&mut tx, &[late[4]]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count().await[&of("order", 0).0], 9, "none counts twice");
    // Two that fill a page are not kept any more.
    let gone = format!("delete from orchestrator.jobs where job in ('{}', '{}')", early[2], early[3]);
    sqlx::raw_sql(sqlx::AssertSqlSafe(gone)).execute(&mut database.superuser().await).await.unwrap();
    assert_eq!(count().await, HashMap::from([of("order", 7), of("refund", 3)]));
}
