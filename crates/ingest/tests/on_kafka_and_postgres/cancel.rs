//! Somebody wants a job cancelled: one transaction tells the workers and the keeper of holds, once.

use axum::http::Method;
use events::wait::Wait;
use events::{decode_cancel, decode_wait};
use flow::event::{EventKind, JobEvent, JobStatus};
use serde_json::{Value, json};
use test_kit::eventually;

use crate::stage::{Answer, INPUT, PATIENCE, PREFIX, Stage, accepted_event};

async fn delete(stage: &Stage, path: &str, body: &str) -> Answer {
    let headers: &[_] = if body.is_empty() { &[] } else { &[("content-type", "application/json")] };
    stage.ingest.api.ask(Method::DELETE, path, headers, body).await.unwrap()
}

async fn status(stage: &Stage, job: &str) -> Value {
    stage.ingest.api.get(&format!("/v1/jobs/{job}")).await.json
}

/// Tells of the job's end, or of something else, and waits until the API has read it.
async fn tell(stage: &Stage, job: &str, kind: EventKind, status_is: JobStatus) {
    let accepted = accepted_event(&stage.ground, job).await;
    stage.ground.tell(&accepted).await;
    stage.ground.tell(&JobEvent { kind, status: status_is, hop: 3, ..accepted }).await;
    eventually(PATIENCE, status_is.as_str(), async || {
        (status(stage, job).await["status"] == status_is.as_str()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_is_told_to_workers_and_holds_at_once_and_shown_from_then_on() {
    let stage = Stage::new().await;
    let job = stage.ingest.api.order(&[], INPUT).await.job();
    let path = format!("/v1/jobs/{job}");
    let before = stage.ingest.api.get(&path).await;
    assert_eq!((&before.json["cancel"], &before.json["cancel_too_late"]), (&Value::Null, &Value::Null));
    let answer = delete(&stage, &path, r#"{"reason":" no longer\nneeded "}"#).await;
    assert_eq!((answer.job(), answer.header("location")), (job.clone(), &*format!("{PREFIX}/v1/jobs/{job}")));
    let records = stage.ground.outbox(&stage.ground.topics.cancels());
    assert_eq!((records.len(), records[0].key.as_deref()), (1, Some(job.as_bytes())));
    let cancel = stage.ground.reader.read(records[0].value.as_deref(), decode_cancel).await.unwrap();
    assert_eq!((cancel.job.to_string(), cancel.requested_by.as_str()), (job.clone(), "default"));
    assert_eq!(cancel.reason.as_deref(), Some("no longer needed"));
    let waits = stage.ground.outbox(&stage.ground.topics.waits());
    assert_eq!((waits.len(), waits[0].key.as_deref()), (1, Some(job.as_bytes())), "the way of the job's holds");
    let wait = stage.ground.reader.read(waits[0].value.as_deref(), decode_wait).await.unwrap();
    let Wait::Signal(signal) = wait else { panic!("{wait:?}") };
    assert_eq!(signal.as_cancel(), Some(cancel));
    assert!(!signal.is_for_flow());
    let together = "select count(distinct txid) from outbox.messages where topic ~ 'cancels$|waits$'";
    assert_eq!(stage.ground.sql(together), "1");
    // Asked once more, nothing is told, and the first reason stays.
    assert_eq!(delete(&stage, &format!("{path}?reason=other"), "").await.job(), job);
    assert_eq!(stage.ground.outbox(&stage.ground.topics.waits()).len(), 1);
    let after = stage.ingest.api.get_with(&path, &[("if-none-match", before.header("etag"))]).await;
    assert_eq!((after.status, after.json["status"].as_str()), (200, Some("accepted")), "{}", after.text);
    assert_eq!(
        (&after.json["cancel"]["by"], &after.json["cancel"]["reason"]),
        (&json!("default"), &json!("no longer needed"))
    );
    let again = stage.ingest.api.get_with(&path, &[("if-none-match", after.header("etag"))]).await;
    assert_eq!(again.status, 304);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_has_ended_is_not_cancelled_and_a_success_says_that_it_was_too_late() {
    let stage = Stage::new().await;
    let ends = [
        (EventKind::JobSucceeded, JobStatus::Succeeded),
        (EventKind::JobFailed, JobStatus::Failed),
        (EventKind::JobCancelled, JobStatus::Cancelled),
    ];
    for (kind, end) in ends {
        let job = stage.ingest.api.order(&[], INPUT).await.job();
        let path = format!("/v1/jobs/{job}?reason=late");
        assert_eq!(delete(&stage, &path, "").await.status, 202);
        tell(&stage, &job, kind, end).await;
        let shown = status(&stage, &job).await;
        assert_eq!(shown["cancel"]["reason"], "late");
        assert_eq!(shown["cancel_too_late"].as_bool(), (end == JobStatus::Succeeded).then_some(true), "{shown}");
        let answer = delete(&stage, &path, "").await;
        match end {
            JobStatus::Cancelled => assert_eq!((answer.status, &answer.json["status"]), (200, &json!("cancelled"))),
            _ => assert_eq!((answer.status, answer.problem()), (409, "already-finished"), "{}", answer.text),
        }
    }
    assert_eq!(stage.ground.outbox(&stage.ground.topics.cancels()).len(), ends.len());
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_being_undone_goes_on_so_and_what_cannot_be_read_is_refused() {
    let stage = Stage::new().await;
    let job = stage.ingest.api.order(&[], INPUT).await.job();
    let path = format!("/v1/jobs/{job}");
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(1_001));
    for (body, problem) in [
        (long.as_str(), "bad-request"),
        (r#"{"why":"x"}"#, "bad-request"),
        ("{", "invalid-json"),
        ("[1]", "bad-request"),
    ] {
        let answer = delete(&stage, &path, body).await;
        assert_eq!((answer.status, answer.problem()), (400, problem), "{}", answer.text);
    }
    for unknown in ["0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d", "17"] {
        let answer = delete(&stage, &format!("/v1/jobs/{unknown}"), "").await;
        assert_eq!((answer.status, answer.problem()), (404, "unknown-job"), "{}", answer.text);
    }
    tell(&stage, &job, EventKind::JobCompensating, JobStatus::Compensating).await;
    let answer = delete(&stage, &path, "").await;
    assert_eq!((answer.status, &answer.json["id"]), (200, &json!(job)), "{}", answer.text);
    assert_eq!((&answer.json["status"], &answer.json["cancel_too_late"]), (&json!("compensating"), &json!(true)));
    let shown = status(&stage, &job).await;
    assert_eq!((&shown["cancel"], &shown["cancel_too_late"]), (&Value::Null, &Value::Null));
    let many = stage.ingest.api.post("/v1/jobs:cancel", &[], r#"{"flow":"order","dry_run":true}"#).await;
    assert_eq!(many.status, 200, "{}", many.text);
    assert_eq!(stage.ground.outbox(&stage.ground.topics.cancels()).len(), 0);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingest_that_starts_later_shows_the_cancels_of_others() {
    let stage = Stage::new().await;
    let job = stage.ingest.api.order(&[], INPUT).await.job();
    assert_eq!(delete(&stage, &format!("/v1/jobs/{job}?reason=x"), "").await.status, 202);
    // As the relay does.
    stage.ground.tell(&accepted_event(&stage.ground, &job).await).await;
    let cancel = stage.ground.outbox(&stage.ground.topics.cancels()).remove(0);
    stage.ground.send(&cancel).await;
    let other = crate::stage::Ingest::start(&stage.ground, |_| {}).await;
    other.ready().await;
    assert_eq!(other.api.get(&format!("/v1/jobs/{job}")).await.json["cancel"]["reason"], "x");
    other.stop().await;
    stage.ingest.stop().await;
}
