//! Jobs that their tenant or their flow wants kept for another time than the deployment.

use events::time::DAY_MS;
use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use store::{Role, Tx, acceptances, flows, jobs, sweep, tenants};

use crate::database::Database;
use crate::retention::{KEEP_MS, accept, day, known, make_partitions, project_one};

const DAY_S: i64 = 86_400;

async fn ended(database: &Database, number: u8, status: JobStatus, ago: i64) -> JobId {
    let job = accept(database, day(database, ago).await, number).await;
    let kind = if status.is_final() { EventKind::JobSucceeded } else { EventKind::JobParked };
    project_one(database, job, i64::from(number), kind, status, ago).await;
    job
}

async fn keep(database: &Database, tenant_d: Option<i64>, flow: Option<&str>) {
    let ingest = database.pool(Role::Ingest);
    tenants::set_keep(&ingest, "acme", tenant_d.map(|days| days * DAY_S)).await.unwrap();
    let document = flow.map_or_else(|| "{}".to_owned(), |retention| format!(r#"{{"retention":"{retention}"}}"#));
    database.run("delete from ingest.flows").await;
    let mut tx: Tx = ingest.begin().await.unwrap();
    flows::apply(&mut tx, "order", "v1", &document).await.unwrap();
    tx.commit().await.unwrap();
}

/// The counts of jobs that went, of acceptances and of the rest.
async fn swept(database: &Database) -> (u64, u64) {
    let accepted = sweep::acceptances(&database.pool(Role::Ingest)).await.unwrap();
    (accepted, sweep::jobs(&database.pool(Role::Orchestrator)).await.unwrap())
}

#[tokio::test]
async fn the_shorter_time_of_tenant_and_flow_counts_and_open_jobs_stay() {
    let database = Database::fresh().await;
    let young = ended(&database, 2, JobStatus::Succeeded, 2).await;
    let middle = ended(&database, 5, JobStatus::Failed, 5).await;
    let old = ended(&database, 9, JobStatus::Cancelled, 9).await;
    let parked = ended(&database, 10, JobStatus::NeedsAttention, 10).await;
    assert_eq!(swept(&database).await, (0, 0), "there is no rule");
    keep(&database, Some(8), None).await;
    assert_eq!(swept(&database).await, (1, 1));
    keep(&database, Some(8), Some("4d")).await;
    assert_eq!(swept(&database).await, (1, 1));
    keep(&database, Some(3), Some("40d")).await;
    assert_eq!(swept(&database).await, (0, 0));
    let mut found = Vec::new();
    for job in [young, middle, old, parked] {
        found.push(known(&database, job).await);
    }
    assert_eq!(found, [(true, true), (false, false), (false, false), (true, true)]);
    keep(&database, None, Some("26h")).await;
    assert_eq!(swept(&database).await, (1, 1));
    // Another tenant's time is nothing to this one.
    keep(&database, None, None).await;
    database.run("insert into ingest.tenants (tenant, keep_s) values ('other', 3600)").await;
    ended(&database, 20, JobStatus::Succeeded, 20).await;
    assert_eq!(swept(&database).await, (0, 0));
}

#[tokio::test]
async fn what_a_job_has_left_elsewhere_goes_after_its_acceptance_and_statistics_stay() {
    let database = Database::fresh().await;
    let job = ended(&database, 5, JobStatus::Succeeded, 5).await.uuid();
    database
        .run(&format!(
            "insert into orchestrator.job_events values ('{job}', 1, '');
             insert into orchestrator.signals (job, name, id) values ('{job}', 'a', 'b');
             insert into orchestrator.cancels values ('{job}', 'acme', 'ann', null, now(), now());
             insert into ingest.job_webhooks values ('{job}', '{job}', 'https://a.example', '{{*}}', null);
             insert into notifier.deliveries (id, endpoint, tenant, job, type, body, status, of_job)
                select overlay('{job}' placing suffix from 35)::uuid, '{job}', 'acme', '{job}', 'job.succeeded', '',
                       status, of_job
                from (values ('a1', 'delivered', false), ('a2', 'pending', false), ('a3', 'pending', true))
                    as sent (suffix, status, of_job);
             insert into notifier.attempts (delivery, attempt, duration_ms, answer)
                select id, 1, 1, '' from notifier.deliveries;
             insert into orchestrator.statistics values
                ('acme', 'order', '', now(), 0, 1, 1, 0, 0, 0, 1, '{{}}')"
        ))
        .await;
    keep(&database, Some(3), None).await;
    let (orchestrator, notifier) = (database.pool(Role::Orchestrator), database.pool(Role::Notifier));
    assert_eq!(sweep::jobs(&orchestrator).await.unwrap(), 0, "its acceptance is there");
    assert_eq!(sweep::deliveries(&notifier).await.unwrap(), 0, "its acceptance is there");
    // Nor does the acceptance go before the job's own webhook is done with.
    let ingest = database.pool(Role::Ingest);
    assert_eq!(sweep::acceptances(&ingest).await.unwrap(), 0, "the notifier has not read its last event");
    database.run("insert into notifier.offsets values ('t.events', 0, 6)").await;
    assert_eq!(sweep::acceptances(&ingest).await.unwrap(), 0, "a delivery is still to be sent");
    database.run("update notifier.deliveries set status = 'failed' where of_job").await;
    assert_eq!(sweep::acceptances(&ingest).await.unwrap(), 1);
    assert_eq!(sweep::jobs(&orchestrator).await.unwrap(), 1);
    assert_eq!(sweep::deliveries(&notifier).await.unwrap(), 2, "one is still to be sent");
    let mut left = Vec::new();
    for table in [
        "ingest.acceptances",
        "ingest.job_webhooks",
        "orchestrator.jobs",
        "orchestrator.job_events",
        "orchestrator.signals",
        "orchestrator.cancels",
        "notifier.attempts",
        "notifier.deliveries",
        "orchestrator.statistics",
    ] {
        left.push(database.count(table).await);
    }
    assert_eq!(left, [0, 0, 0, 0, 0, 0, 1, 1, 1]);
}

#[tokio::test]
async fn a_longer_time_keeps_a_job_though_its_day_goes() {
    let database = Database::fresh().await;
    let old = day(&database, 60).await;
    make_partitions(&database, old).await;
    let job = ended(&database, 1, JobStatus::Succeeded, 60).await;
    keep(&database, Some(90), None).await;
    let retired = [
        acceptances::retire(&database.pool(Role::Ingest), KEEP_MS).await.unwrap(),
        jobs::retire(&database.pool(Role::Orchestrator), KEEP_MS).await.unwrap(),
    ];
    assert_eq!(retired.map(|retired| (retired.partitions.len(), retired.moved_rows)), [(1, 1), (1, 1)]);
    assert_eq!(known(&database, job).await, (true, true));
    keep(&database, None, Some("59d")).await;
    assert_eq!(swept(&database).await, (1, 1));
    assert_eq!(KEEP_MS, 30 * DAY_MS);
}
