//! Signals meet the holds that wait for them, whichever comes first, and each once.

use std::collections::BTreeMap;

use events::wait::{Signal, Wait};
use events::{Record, decode_slip, header, wait_record};
use flow::id::JobId;
use flow::slip::{Hold, HoldReason};
use serde_json::json;
use test_kit::{Ground, TEST_TRACE, sample_job, sample_slip};

use crate::stage::{start, start_zombie, until, until_taken_in};

async fn send(ground: &Ground, wait: Wait) {
    ground.send(&wait_record(&ground.topics, &ground.writers, &wait, &TEST_TRACE).unwrap()).await;
}

fn waiting(job: JobId, release_after_ms: Option<u64>) -> Wait {
    let (slip, queue, signal) = (sample_slip(job, 2), "default".to_owned(), Some("approval".to_owned()));
    Wait::Hold(Hold { slip, queue, reason: HoldReason::Signal, release_after_ms, signal, limit: None })
}

fn signal(job: JobId, id: &str) -> Wait {
    let payload = Some(json!({ "for": job.to_string(), "id": id }));
    let (tenant, name, id) = ("default".to_owned(), "approval".to_owned(), id.to_owned());
    Wait::Signal(Signal { job, tenant, name, id, payload, at_ms: 1 })
}

fn released(record: &Record) -> Option<(&[u8], serde_json::Value)> {
    let header = |name: &str| record.header(name);
    Some((header(header::RELEASED_BY)?, serde_json::from_slice(header(header::RELEASED_PAYLOAD)?).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_jobs_get_their_signals_in_both_orders_from_several_orchestrators() {
    let mut ground = Ground::new().await;
    let all = [start_zombie(&mut ground), start(&ground), start(&ground)];
    let jobs: Vec<JobId> = (0..1_000).map(|_| sample_job()).collect();
    for (number, job) in jobs.iter().enumerate() {
        if number % 2 == 0 {
            send(&ground, waiting(*job, None)).await;
        }
        // Repetitions are one signal.
        send(&ground, signal(*job, "first")).await;
        send(&ground, signal(*job, "first")).await;
        if number % 2 == 1 {
            send(&ground, waiting(*job, None)).await;
        }
    }
    until_taken_in(&ground, &ground.topics.waits(), 3_000).await;
    until(&ground, "select count(*) from orchestrator.holds", "0").await;
    let sent = ground.outbox(&ground.topics.steps("default"));
    let mut seen: BTreeMap<JobId, usize> = BTreeMap::new();
    for record in &sent {
        let slip = ground.reader.read(record.value.as_deref(), decode_slip).await.unwrap();
        assert_eq!(slip, sample_slip(slip.job, 2), "the slip is sent as it was held");
        let (by, payload) = released(record).unwrap();
        assert_eq!((by, payload), (&b"signal"[..], json!({ "for": slip.job.to_string(), "id": "first" })));
        *seen.entry(slip.job).or_default() += 1;
    }
    assert!(jobs.iter().all(|job| seen.get(job) == Some(&1)), "one release for each");
    for running in all {
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_whose_time_came_first_goes_on_without_its_signal() {
    let ground = Ground::new().await;
    let running = start(&ground);
    let job = sample_job();
    send(&ground, waiting(job, Some(1))).await;
    until(&ground, "select count(*) from outbox.messages", "1").await;
    send(&ground, signal(job, "late")).await;
    until_taken_in(&ground, &ground.topics.waits(), 2).await;
    let sent = ground.outbox(&ground.topics.steps("default"));
    assert_eq!((sent.len(), released(&sent[0])), (1, None));
    assert_eq!(ground.sql("select count(*) from orchestrator.signals where used_at is null"), "1");
    running.stop().await;
}
