//! Jobs that start later: their first token goes to the orchestrator, to rest there.

use events::headers::Headers;
use events::wait::Wait;
use events::{Record, decode_event, decode_wait_and_slip};
use flow::event::{EventKind, JobStatus};
use flow::slip::HoldReason;
use test_kit::eventually;

use crate::stage::{INPUT, PATIENCE, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_starts_later_is_accepted_and_rests() {
    let Stage { ground, ingest } = Stage::new().await;
    let key = [("idempotency-key", "later-1")];
    let answer = ingest.api.post("/v1/flows/order/jobs?delay=1h", &key, INPUT).await;
    let job = answer.job();
    let again = ingest.api.post("/v1/flows/order/jobs?delay=1h", &key, INPUT).await;
    assert_eq!((again.job(), again.header("idempotent-replayed")), (job.clone(), "true"));
    for query in ["", "?delay=2h", "?start_at=2026-01-05T09:30:00Z"] {
        let other = ingest.api.post(&format!("/v1/flows/order/jobs{query}"), &key, INPUT).await;
        assert_eq!((other.status, other.problem()), (422, "idempotency-key-reused"), "{query}");
    }

    assert!(ground.outbox(&ground.topics.steps("default")).is_empty());
    let waits = ground.outbox(&ground.topics.waits());
    assert_eq!(waits.len(), 1);
    assert_eq!(waits[0].key.as_deref(), Some(job.as_bytes()), "signals and cancels of the job come by its partition");
    let (wait, _) = ground.reader.read(waits[0].value.as_deref(), decode_wait_and_slip).await.unwrap();
    let Wait::Hold(hold) = wait else { panic!("{wait:?}") };
    assert_eq!(
        (hold.reason, hold.release_after_ms, hold.queue.as_str()),
        (HoldReason::Timer, Some(3_600_000), "default")
    );
    assert_eq!((hold.slip.step.as_str(), hold.slip.hop), ("reserve", 1));

    let events = ground.outbox(&ground.topics.events());
    assert_eq!(events.len(), 2);
    let told = ground.reader.read(events[1].value.as_deref(), decode_event).await.unwrap();
    assert_eq!((told.kind, told.status, told.index), (EventKind::StepWaiting, JobStatus::Waiting, 1));
    assert_eq!((told.step.as_deref(), told.next_attempt_after_ms), (Some("reserve"), Some(3_600_000)));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_cannot_be_understood_is_refused_and_one_that_is_over_is_now() {
    let Stage { ground, ingest } = Stage::new().await;
    for (query, wanted) in [
        ("delay=soon", "`delay` is a number and a unit"),
        ("delay=366d", "365 at most"),
        ("start_at=tomorrow", "`start_at` is a time such as"),
        ("delay=1s&start_at=2026-01-05T09:30:00Z", "exclude each other"),
        ("dealy=1h", "unknown field `dealy`"),
    ] {
        let answer = ingest.api.post(&format!("/v1/flows/order/jobs?{query}"), &[], INPUT).await;
        assert_eq!((answer.status, answer.problem()), (400, "bad-request"), "{query}");
        let detail = answer.json["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(wanted), "{query}: {detail}");
    }
    assert!(ground.outbox(&ground.topics.events()).is_empty(), "nothing is stored");
    ingest.api.post("/v1/flows/order/jobs?start_at=2020-01-05T09:30:00Z", &[], INPUT).await.job();
    assert_eq!(ground.outbox(&ground.topics.steps("default")).len(), 1);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_starts_its_job_later_too() {
    let Stage { ground, ingest } = Stage::new().await;
    let value = format!(r#"{{"flow":"order","input":{INPUT},"delay":"2d"}}"#);
    let topic = ground.topics.commands();
    ground
        .send(&Record { topic, key: Some(b"k".to_vec()), value: Some(value.into_bytes()), headers: Headers::default() })
        .await;
    let waits = eventually(PATIENCE, "the command is a job that rests", async || {
        Some(ground.outbox(&ground.topics.waits())).filter(|waits| !waits.is_empty())
    });
    let waits = waits.await;
    let (wait, _) = ground.reader.read(waits[0].value.as_deref(), decode_wait_and_slip).await.unwrap();
    assert!(matches!(&wait, Wait::Hold(hold) if hold.release_after_ms == Some(172_800_000)), "{wait:?}");
    assert!(ground.outbox(&ground.topics.steps("default")).is_empty());
    ingest.stop().await;
}
