//! The notifier on a real Kafka, registry and Postgres.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "a test that meets an error fails")]

mod job_webhooks;
mod leases;
mod rates;
mod stage;
mod webhooks;

use events::Record;
use events::headers::Headers;
use flow::event::{EventKind, JobEvent, JobStatus};
use service_kit::telemetry::Metrics;
use test_kit::{Ground, Receiver, eventually, sample_event, sample_job};

use crate::stage::{PATIENCE, deliveries, ids, register, start, until};

async fn until_taken_in(ground: &Ground, records: usize) {
    eventually(PATIENCE, "all records are taken in", async || {
        let taken_in = ground.sql("select coalesce(sum(next_offset), 0) from notifier.offsets");
        (taken_in == records.to_string()).then_some(())
    })
    .await;
}

/// The value of the first line of the metrics that holds all of these words.
fn metric(words: &[&str]) -> u64 {
    let text = Metrics::install().unwrap().render();
    let line = text.lines().find(|line| words.iter().all(|word| line.contains(word)));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// An event of a flow that no other test counts.
fn event(flow: &str, kind: EventKind, status: JobStatus) -> JobEvent {
    let mut event = sample_event(sample_job(), kind, status, 1);
    flow.clone_into(&mut event.flow);
    event
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_end_is_told_once_and_unreadable_events_are_passed_over() {
    let mut ground = Ground::new().await;
    Metrics::install().unwrap();
    let flow = ground.topics.prefix().to_owned();
    let receiver = Receiver::start().await;
    let endpoint = register(&ground, &receiver.url(), &["job.*"]).await;
    let skipped_before = metric(&["meanwhile_unreadable_skipped_total", "notifier"]);
    let running = start(&ground);
    // It is given every partition, as a zombie is that has not heard of its revocation.
    ground.bus.properties.insert("group.id".to_owned(), format!("{flow}-zombie"));
    let zombie = start(&ground);
    for number in 0..100 {
        ground.tell(&event(&flow, EventKind::JobAccepted, JobStatus::Accepted)).await;
        ground.tell(&event(&flow, EventKind::JobSucceeded, JobStatus::Succeeded)).await;
        if number % 10 == 0 {
            ground.tell(&event(&flow, EventKind::JobFailed, JobStatus::Failed)).await;
        }
    }
    for value in [None, Some(vec![]), Some(b"noise".to_vec())] {
        ground
            .send(&Record {
                topic: ground.topics.events(),
                key: Some(b"k".to_vec()),
                value,
                headers: Headers::default(),
            })
            .await;
    }
    until_taken_in(&ground, 213).await;
    until(&ground, endpoint.id, "delivered", 210).await;
    running.stop().await;
    zombie.stop().await;
    let ended = |status: &str| metric(&["meanwhile_jobs_ended_total", &format!("flow=\"{flow}\""), status]);
    assert_eq!((ended("succeeded"), ended("failed")), (100, 10), "by one of the two, not by both");
    assert!(metric(&["meanwhile_unreadable_skipped_total", "notifier"]) >= skipped_before + 3);
    // What one of the two has read in vain has made no delivery.
    assert_eq!(deliveries(&ground, endpoint.id, "id").len(), 210);
    let mut told = ids(&receiver.requests());
    told.sort();
    told.dedup();
    assert_eq!((told.len(), receiver.requests().len()), (210, 210));
    assert!(ground.outbox(&ground.topics.dead_letters()).is_empty(), "that is the orchestrator's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_where_the_last_one_stood() {
    let ground = Ground::new().await;
    Metrics::install().unwrap();
    let flow = ground.topics.prefix().to_owned();
    for round in 1..=3 {
        let running = start(&ground);
        for _ in 0..10 {
            ground.tell(&event(&flow, EventKind::JobCancelled, JobStatus::Cancelled)).await;
        }
        until_taken_in(&ground, round * 10).await;
        running.stop().await;
    }
    assert_eq!(metric(&["meanwhile_jobs_ended_total", &format!("flow=\"{flow}\""), "cancelled"]), 30);
}
