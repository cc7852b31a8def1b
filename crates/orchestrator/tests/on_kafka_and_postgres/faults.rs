//! The service's dependencies go away and come back: no record is refused for that, and none is lost.

use bus::Registry as RegistryClient;
use events::schema::RecordKind;
use events::{Record, event_record};
use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use serde_json::{Value, json};
use test_kit::{Ground, Postgres, PostgresOptions, Registry, TEST_TRACE, kafka, postgres_database, prefix, registry};
use test_kit::{sample_event, sample_job};

use crate::stage::{refused, start, stored, until_taken_in};

/// The event's schema of some later version: one more field at its end.
fn later_schema() -> String {
    let mut schema: Value = serde_json::from_str(RecordKind::JobEvent.latest()).unwrap();
    let more = json!({ "name": "more", "type": ["null", "string"], "default": null });
    schema["fields"].as_array_mut().unwrap().push(more);
    schema.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_registry_is_down_nothing_becomes_a_dead_letter() {
    let mut registry = Registry::start().await.unwrap();
    let ground = Ground::on(&kafka().await, &registry.url(), &postgres_database().await).await;
    let client = RegistryClient::new(&registry.url(), None).unwrap();
    let subject = format!("{}-value", ground.topics.events());
    let later = client.register(&subject, &later_schema()).await.unwrap();
    assert_ne!(later, ground.writers.job_event);
    let running = start(&ground);
    running.readiness.wait_ready().await;
    registry.kill9();

    let job = sample_job();
    let event = sample_event(job, EventKind::JobAccepted, JobStatus::Accepted, 0);
    let record = event_record(&ground.topics, &ground.writers, &event, &TEST_TRACE).unwrap();
    let value = record.value.as_deref().unwrap();
    // As the later version writes it: its schema's id, and null for the field that we do not know.
    let value = [&[0], &later.to_be_bytes()[..], &value[5..], &[0]].concat();
    ground.send(&Record { value: Some(value), ..record.clone() }).await;
    running.until_missing("registry").await;
    // One that starts meanwhile waits, too.
    let late = start(&ground);
    late.until_missing("registry").await;
    assert_eq!(ground.sql("select count(*) from orchestrator.jobs"), "0");
    assert!(refused(&ground).is_empty());

    registry.restart().await.unwrap();
    until_taken_in(&ground, &ground.topics.events(), 1).await;
    assert_eq!(stored(&ground, job).await.0, "accepted");
    assert!(refused(&ground).is_empty());
    running.readiness.wait_ready().await;
    late.readiness.wait_ready().await;
    running.stop().await;
    late.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_killed_again_and_again_ends_up_with_everything_once() {
    let mut postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let database_url = postgres.create_database(&prefix()).unwrap();
    let ground = Ground::on(&kafka().await, &registry().await, &database_url).await;
    let running = start(&ground);
    let jobs: Vec<JobId> = (0..400).map(|_| sample_job()).collect();
    for (number, job) in jobs.iter().enumerate() {
        ground.tell(&sample_event(*job, EventKind::JobAccepted, JobStatus::Accepted, 0)).await;
        ground.tell(&sample_event(*job, EventKind::JobSucceeded, JobStatus::Succeeded, 1)).await;
        if number % 100 == 50 {
            postgres.kill9();
            postgres.restart().await.unwrap();
        }
    }
    postgres.kill9();
    running.until_missing("postgres").await;
    postgres.restart().await.unwrap();
    until_taken_in(&ground, &ground.topics.events(), 800).await;
    running.readiness.wait_ready().await;
    running.stop().await;
    assert_eq!(ground.sql("select count(*) from orchestrator.jobs where status = 'succeeded'"), "400");
    for job in jobs.iter().step_by(40) {
        assert_eq!(stored(&ground, *job).await.2, ["job.accepted", "job.succeeded"]);
    }
    assert!(refused(&ground).is_empty());
}
