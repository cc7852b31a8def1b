//! The one-token invariant is read from real topics, not only from values.

use std::collections::BTreeSet;

use bus::admin::Admin;
use bus::{Producer, Reader, Registry, Settings};
use events::lane::Freed;
use events::topic::Topics;
use events::wait::{Outcome, RunningCall, Turn, Wait};
use events::{Record, WriterIds, event_record, slip_record, wait_record};
use flow::event::{EventKind, JobStatus};
use flow::id::{JobId, TokenId};
use flow::slip::{Hold, HoldReason, Slip};
use test_kit::{
    TEST_TRACE, Tokens, eventually, kafka, prefix, read_topic, registry, sample_event, sample_job, sample_slip,
};
use uuid::Uuid;

/// Only ends a test that hangs.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(300);

/// One step, whose slip was held once.
fn records_of_a_job(topics: &Topics, ids: &WriterIds, job: JobId) -> Vec<Record> {
    let hold = Hold {
        slip: sample_slip(job, 2),
        queue: "q".to_owned(),
        reason: HoldReason::Backoff,
        release_after_ms: Some(1),
        signal: None,
        limit: None,
    };
    let accepted = sample_event(job, EventKind::JobAccepted, JobStatus::Accepted, 0);
    let succeeded = sample_event(job, EventKind::JobSucceeded, JobStatus::Succeeded, 2);
    let records = [
        event_record(topics, ids, &accepted, &TEST_TRACE),
        slip_record(topics, ids, "default", &sample_slip(job, 1), &TEST_TRACE),
        wait_record(topics, ids, &Wait::Hold(hold), &TEST_TRACE),
        slip_record(topics, ids, "q", &sample_slip(job, 2), &TEST_TRACE),
        event_record(topics, ids, &succeeded, &TEST_TRACE),
    ];
    records.into_iter().map(|record| record.expect("a small record")).collect()
}

/// One step that a worker had under way for long and lost, and another one after a rest behind a job of its key.
fn records_of_a_long_job(topics: &Topics, ids: &WriterIds, job: JobId) -> Vec<Record> {
    let (first, slip, next) = (sample_slip(job, 1), sample_slip(job, 2), sample_slip(job, 3));
    let hold = |slip: &Slip, reason| {
        let (slip, queue) = (slip.clone(), "default".to_owned());
        Hold { slip, queue, reason, release_after_ms: None, signal: None, limit: None }
    };
    let (token, lane, worker) = (slip.token(), slip.record_key(), "w/1".to_owned());
    let behind = TokenId { job: sample_job(), ..token.clone() };
    let sent = |slip| slip_record(topics, ids, "default", slip, &TEST_TRACE).expect("a small record");
    let waits = |wait| wait_record(topics, ids, &wait, &TEST_TRACE).expect("a small record");
    let told = |event| event_record(topics, ids, &event, &TEST_TRACE).expect("a small record");
    let refused = Outcome { token, tenant: slip.tenant.clone(), lane, worker, records: vec![sent(&next)] };
    let freed = Freed { holder: behind.clone(), turns: 1 };
    let running = hold(&slip, HoldReason::Running);
    vec![
        told(sample_event(job, EventKind::JobAccepted, JobStatus::Accepted, 0)),
        sent(&first),
        waits(Wait::Running(RunningCall { hold: running, worker: "w/1".to_owned(), attempt: 1, lease_ms: 1 })),
        sent(&slip),
        waits(Wait::Outcome(refused)),
        waits(Wait::Turn(Turn { hold: hold(&next, HoldReason::Turn), behind, place: 1 })),
        sent(&next),
        freed.record(topics.steps("default"), next.record_key().into_bytes()),
        told(sample_event(job, EventKind::JobSucceeded, JobStatus::Succeeded, 3)),
    ]
}

/// Creates the topics; a slow broker may not show them at once.
async fn create(settings: &Settings, topics: &Topics, queues: &BTreeSet<String>) {
    let admin = Admin::new(settings).expect("settings for Kafka");
    eventually(PATIENCE, "topics are created", async || admin.create_topics(topics, queues, None).await.ok()).await;
}

#[tokio::test]
async fn a_split_and_a_lost_job_are_found_among_sound_ones() {
    let (brokers, registry_url, prefix) = (kafka().await, registry().await, prefix());
    let (settings, topics) = (Settings::new(&brokers, &registry_url), Topics::new(&prefix));
    let queues = BTreeSet::from(["default".to_owned(), "q".to_owned()]);
    create(&settings, &topics, &queues).await;
    let ids = Reader::new(Registry::new(&registry_url, None).unwrap()).writer_ids(&topics).await.unwrap();
    let producer = Producer::new(&settings).unwrap();

    let jobs: Vec<JobId> = (0..20).map(|_| JobId::new(Uuid::now_v7())).collect();
    for job in &jobs {
        for record in records_of_a_job(&topics, &ids, *job) {
            producer.send(&record).await.unwrap();
        }
    }
    let tokens = Tokens::read_back(&brokers, &registry_url, &prefix).await.unwrap();
    assert_eq!((tokens.slips.len(), tokens.holds.len(), tokens.events.len()), (40, 20, 40));
    assert_eq!(tokens.problems(jobs.iter().copied()), Vec::<String>::new());

    let split = slip_record(&topics, &ids, "default", &sample_slip(jobs[3], 2), &TEST_TRACE).unwrap();
    producer.send(&split).await.unwrap();
    let tokens = Tokens::read_back(&brokers, &registry_url, &prefix).await.unwrap();
    assert_eq!(tokens.problems([]), [format!("{}: split: 2 slips of branch \"\" hop 2", jobs[3])]);
    let lost = JobId::new(Uuid::now_v7());
    assert!(tokens.problems([lost]).contains(&format!("{lost}: lost: accepted, but on no topic")));
}

#[tokio::test]
async fn a_step_under_way_and_a_turn_are_places_of_a_token_and_an_outcome_is_none() {
    let (brokers, registry_url, prefix) = (kafka().await, registry().await, prefix());
    let (settings, topics) = (Settings::new(&brokers, &registry_url), Topics::new(&prefix));
    create(&settings, &topics, &BTreeSet::from(["default".to_owned()])).await;
    let ids = Reader::new(Registry::new(&registry_url, None).unwrap()).writer_ids(&topics).await.unwrap();
    let producer = Producer::new(&settings).unwrap();
    let (sound, unheld) = (JobId::new(Uuid::now_v7()), JobId::new(Uuid::now_v7()));
    for record in records_of_a_long_job(&topics, &ids, sound) {
        producer.send(&record).await.unwrap();
    }
    let tokens = Tokens::read_back(&brokers, &registry_url, &prefix).await.unwrap();
    assert_eq!((tokens.slips.len(), tokens.holds.len(), tokens.unreadable.len()), (3, 2, 0));
    assert_eq!(tokens.problems([sound]), Vec::<String>::new());

    // Without the second hop's slip and hold, its outcome does not stand for it.
    for (place, record) in records_of_a_long_job(&topics, &ids, unheld).into_iter().enumerate() {
        if ![2, 3].contains(&place) {
            producer.send(&record).await.unwrap();
        }
    }
    let tokens = Tokens::read_back(&brokers, &registry_url, &prefix).await.unwrap();
    assert_eq!(tokens.problems([]), [format!("{unheld}: lost between: branch \"\" goes from hop 2 on at 3")]);
}

#[tokio::test]
async fn a_topic_that_does_not_exist_holds_nothing() {
    assert!(read_topic(&kafka().await, &prefix()).await.unwrap().is_empty());
}
