//! Many jobs cancelled or retried with one request.

use flow::event::{EventKind, JobEvent, JobStatus};
use serde_json::{Value, json};
use test_kit::eventually;

use crate::list_jobs::project_one;
use crate::retry::{rest, slip};
use crate::stage::{Answer, INPUT, PATIENCE, Stage, accepted_event};

async fn submit(stage: &Stage, correlation: &str) -> String {
    stage.ingest.api.order(&[("x-correlation-id", correlation)], INPUT).await.job()
}

async fn ask(stage: &Stage, deed: &str, body: &Value) -> Answer {
    stage.ingest.api.post(&format!("/v1/jobs:{deed}"), &[], &body.to_string()).await
}

/// The job is so now, for the tail and for the projection.
async fn becomes(stage: &Stage, job: &str, kind: EventKind, status: JobStatus) {
    let accepted = accepted_event(&stage.ground, job).await;
    let event = JobEvent { kind, status, hop: 1, step: Some("reserve".to_owned()), ..accepted.clone() };
    stage.ground.tell(&accepted).await;
    let (_, cursor) = stage.ground.tell(&event).await;
    project_one(&stage.ground, cursor, event).await;
    eventually(PATIENCE, "the status follows", async || {
        let seen = stage.ingest.api.get(&format!("/v1/jobs/{job}")).await.json;
        (seen["status"] == status.as_str()).then_some(())
    })
    .await;
}

fn cancels(stage: &Stage) -> usize {
    stage.ground.outbox(&stage.ground.topics.cancels()).len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chosen_jobs_are_cancelled_page_by_page_and_once() {
    let stage = Stage::new().await;
    let mut jobs = vec![];
    for number in 0..5 {
        jobs.insert(0, submit(&stage, &number.to_string()).await);
    }
    let plain = stage.ingest.api.post("/v1/flows/plain/jobs", &[], "{}").await.job();
    becomes(&stage, &jobs[4], EventKind::JobSucceeded, JobStatus::Succeeded).await;

    let counted = ask(&stage, "cancel", &json!({ "flow": "order", "dry_run": true })).await.json;
    assert_eq!((&counted["chosen"], &counted["done"], &counted["dry_run"]), (&json!(4), &json!(4), &json!(true)));
    assert_eq!(cancels(&stage), 0);

    let (mut done, mut pages, mut cursor) = (0, 0, Value::Null);
    loop {
        let mut body = json!({ "flow": "order", "max": 3, "reason": "over" });
        if !cursor.is_null() {
            body["cursor"] = cursor;
        }
        let page = ask(&stage, "cancel", &body).await;
        assert_eq!((page.status, &page.json["left"]), (200, &json!([])), "{}", page.text);
        done += page.json["done"].as_u64().unwrap();
        pages += 1;
        cursor = page.json["next"].clone();
        if cursor.is_null() {
            break;
        }
        assert!(page.json["looked_back_to"].is_string(), "{}", page.text);
    }
    assert_eq!((done, cancels(&stage)), (4, 4));
    assert!(pages >= 2);
    // Once more changes nothing; the first reason stays.
    let again = ask(&stage, "cancel", &json!({ "flow": "order", "reason": "another" })).await.json;
    assert_eq!((&again["done"], cancels(&stage)), (&json!(4), 4));
    for job in &jobs[..4] {
        let status = stage.ingest.api.get(&format!("/v1/jobs/{job}")).await.json;
        assert_eq!(status["cancel"]["reason"], "over", "{status}");
    }
    let status = stage.ingest.api.get(&format!("/v1/jobs/{plain}")).await.json;
    assert_eq!(status.get("cancel"), None, "it was not chosen");

    // One that has ended is named, and stops no other.
    let body = json!({ "correlation_id": "0", "status": "succeeded" });
    let ended = ask(&stage, "cancel", &body).await.json;
    assert_eq!((&ended["chosen"], &ended["done"], &ended["left"][0]["id"]), (&json!(1), &json!(0), &json!(jobs[4])));
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_jobs_go_on_and_finished_ones_start_anew_once_under_one_key() {
    let stage = Stage::new().await;
    let (parked, failed, running) = (submit(&stage, "p").await, submit(&stage, "f").await, submit(&stage, "r").await);
    becomes(&stage, &parked, EventKind::JobParked, JobStatus::NeedsAttention).await;
    let early = ask(&stage, "retry", &json!({ "flow": "order" })).await.json;
    assert_eq!((&early["done"], &early["left"][0]["id"]), (&json!(0), &json!(parked)), "its token does not rest yet");
    rest(&stage, slip(&parked, 2, false)).await;
    becomes(&stage, &failed, EventKind::JobFailed, JobStatus::Failed).await;
    let resumes = || stage.ground.outbox(&stage.ground.topics.waits()).len();

    let sent = ask(&stage, "retry", &json!({ "flow": "order" })).await.json;
    assert_eq!((&sent["chosen"], &sent["done"], resumes()), (&json!(1), &json!(1), 1), "{sent}");
    assert_eq!(stage.jobs_stored(), 3);
    for (key, stored) in [(None, 4), (None, 4), (Some("again"), 5), (Some("again"), 5)] {
        let mut body = json!({ "flow": "order", "status": "failed" });
        if let Some(key) = key {
            body["idempotency_key"] = key.into();
        }
        let sent = ask(&stage, "retry", &body).await.json;
        assert_eq!((&sent["done"], stage.jobs_stored()), (&json!(1), stored), "{key:?}: {sent}");
    }
    let anew = stage.ground.sql(&format!("select count(*) from ingest.acceptances where retry_of = '{failed}'"));
    assert_eq!(anew, "2");
    let refused = ask(&stage, "retry", &json!({ "correlation_id": "r", "status": "accepted" })).await.json;
    assert_eq!((&refused["done"], &refused["left"][0]["id"]), (&json!(0), &json!(running)));
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_chooses_among_all_jobs_or_is_malformed_is_refused() {
    let stage = Stage::new().await;
    for (deed, body) in [
        ("cancel", json!({})),
        ("retry", json!({ "max": 5 })),
        ("cancel", json!({ "flow": "order", "max": 0 })),
        ("cancel", json!({ "flow": "order", "max": 201 })),
        ("cancel", json!({ "flow": "order", "status": "done" })),
        ("cancel", json!({ "flow": "order", "cursor": "x" })),
        ("cancel", json!({ "flow": "order", "reason": "x".repeat(1_001) })),
        ("cancel", json!({ "flow": "order", "idempotency_key": "k" })),
        ("retry", json!({ "flow": "order", "reason": "r" })),
        ("retry", json!({ "flwo": "order" })),
    ] {
        let answer = ask(&stage, deed, &body).await;
        assert_eq!((answer.status, answer.problem()), (400, "bad-request"), "{deed} {body}");
    }
    let answer = ask(&stage, "retry", &json!({ "flow": "order", "idempotency_key": "\n" })).await;
    assert_eq!(answer.problem(), "invalid-idempotency-key");
    stage.ingest.stop().await;
}
