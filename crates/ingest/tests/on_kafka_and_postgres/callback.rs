//! Callbacks over HTTP: who is let in, and what goes to the orchestrator.

use axum::http::Method;
use events::decode_wait;
use events::wait::{Signal, Wait};
use flow::callback::{Permit, Purpose};
use flow::event::{EventKind, JobEvent, JobStatus};
use serde_json::{Value, json};
use test_kit::eventually;

use crate::stage::{Answer, INPUT, PATIENCE, Stage, accepted_event, callback_secrets};

/// The end of a permit that nobody lives to see.
const NEVER_MS: i64 = 32_503_680_000_000;

async fn stage() -> (Stage, Permit) {
    let stage = Stage::new().await;
    let job = stage.ingest.api.order(&[], INPUT).await.job();
    let (tenant, step) = ("default".to_owned(), "charge".to_owned());
    let permit = Permit { job: job.parse().unwrap(), tenant, step, visit: 1, round: 0, end_ms: NEVER_MS };
    (stage, permit)
}

fn path(permit: &Permit) -> String {
    format!("/v1/callbacks/{}", callback_secrets().sign(Purpose::Callback, permit).unwrap())
}

async fn call(stage: &Stage, path: &str, media_type: &str, body: &str) -> Answer {
    let headers = [("content-type", media_type)];
    stage.ingest.api.ask(Method::POST, path, &headers, body).await.unwrap()
}

async fn sent(stage: &Stage) -> Vec<Signal> {
    let mut signals = Vec::new();
    for record in stage.ground.outbox(&stage.ground.topics.waits()) {
        let wait = stage.ground.reader.read(record.value.as_deref(), decode_wait).await.unwrap();
        let Wait::Signal(signal) = wait else { panic!("{wait:?}") };
        signals.push(signal);
    }
    signals
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_goes_to_the_jobs_holds_as_a_signal_that_nobody_else_can_send() {
    let (stage, permit) = stage().await;
    let answer = call(&stage, &path(&permit), "application/json", r#"{"id":"c-1"}"#).await;
    assert_eq!((answer.status, &answer.json["step"]), (202, &json!("charge")), "{}", answer.text);
    let signals = sent(&stage).await;
    let [signal] = signals.as_slice() else { panic!("{signals:?}") };
    assert_eq!((signal.job, signal.name.as_str(), signal.id.as_str()), (permit.job, "callback:charge:1:0", "callback"));
    assert_eq!(signal.payload, Some(json!({ "outcome": "done", "body": { "id": "c-1" } })));
    let other = format!("/v1/jobs/{}/signals/{}", permit.job, signal.name);
    let refused = stage.ingest.api.post(&other, &[], "{}").await;
    assert_eq!((refused.status, refused.problem()), (404, "unknown-signal"));
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_signals_turn_no_callback_away() {
    let (stage, permit) = stage().await;
    stage.ground.sql(&format!(
        "insert into orchestrator.signals (job, name, id)
         select '{}', 'other', number::text from generate_series(1, 1000) as number",
        permit.job
    ));
    let answer = call(&stage, &path(&permit), "application/json", "{}").await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_tells_success_or_failure_by_its_body_or_its_query() {
    let (stage, permit) = stage().await;
    let path = path(&permit);
    let (json_type, problem) = ("application/json", "application/problem+json");
    let given = [
        ("", json_type, "", json!({ "outcome": "done", "body": null })),
        ("?outcome=done", problem, r#"{"a":1}"#, json!({ "outcome": "done", "body": { "a": 1 } })),
        ("?outcome=failed", json_type, "", json!({ "outcome": "failed", "problem": null })),
        ("", problem, r#"{"status":409}"#, json!({ "outcome": "failed", "problem": { "status": 409 } })),
        ("?outcome=failed&retryable=true", json_type, "", json!({ "outcome": "retry", "problem": null })),
        ("", problem, r#"{"retryable":true}"#, json!({ "outcome": "retry", "problem": { "retryable": true } })),
    ];
    for (query, media_type, body, _) in &given {
        assert_eq!(call(&stage, &format!("{path}{query}"), media_type, body).await.status, 202, "{query} {body}");
    }
    let put = stage.ingest.api.ask(Method::PUT, &path, &[], "").await.unwrap();
    assert_eq!(put.status, 202);
    let payloads: Vec<Value> = sent(&stage).await.into_iter().filter_map(|signal| signal.payload).collect();
    let expected: Vec<Value> = given.into_iter().map(|(.., payload)| payload).collect();
    assert_eq!(payloads[..6], expected);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guessed_changed_or_old_address_is_none_and_what_cannot_be_read_is_refused() {
    let (stage, permit) = stage().await;
    let good = path(&permit);
    let mut changed = good.clone().into_bytes();
    let at = changed.len() - 60;
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    let old = path(&Permit { end_ms: 1, ..permit.clone() });
    let nobodys = path(&Permit { job: "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".parse().unwrap(), ..permit.clone() });
    let others = path(&Permit { tenant: "other".to_owned(), ..permit.clone() });
    for address in [String::from_utf8(changed).unwrap(), old, nobodys, others, "/v1/callbacks/x".to_owned()] {
        let answer = call(&stage, &address, "application/json", "{}").await;
        assert_eq!((answer.status, answer.problem()), (404, "unknown-callback"), "{address}");
    }
    let large = format!("\"{}\"", "x".repeat(64 * 1024));
    for (query, media_type, body, status, problem) in [
        ("", "application/json", "{", 400, "invalid-json"),
        ("", "application/json", large.as_str(), 413, "payload-too-large"),
        ("", "text/plain", "ok", 415, "unsupported-media-type"),
        ("?outcome=well", "application/json", "", 400, "bad-request"),
    ] {
        let answer = call(&stage, &format!("{good}{query}"), media_type, body).await;
        assert_eq!((answer.status, answer.problem()), (status, problem), "{}", answer.text);
    }
    assert_eq!(sent(&stage).await, []);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_callback_is_answered_as_the_first_also_after_the_job_has_ended() {
    let (stage, permit) = stage().await;
    let job = permit.job;
    let accepted = accepted_event(&stage.ground, &job.to_string()).await;
    stage.ground.tell(&accepted).await;
    let end = JobEvent { kind: EventKind::JobSucceeded, status: JobStatus::Succeeded, hop: 5, ..accepted };
    stage.ground.tell(&end).await;
    let late = eventually(PATIENCE, "the job has ended", async || {
        let answer = call(&stage, &path(&permit), "application/json", "{}").await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    assert_eq!((late.status, late.problem()), (409, "already-finished"));
    let before = sent(&stage).await.len();
    stage.ground.sql(&format!(
        "insert into orchestrator.signals (job, name, id, payload, used_at)
         values ('{job}', '{}', 'callback', '{{}}', now())",
        permit.signal()
    ));
    let again = call(&stage, &path(&permit), "application/json", r#"{"another":1}"#).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"));
    assert_eq!(sent(&stage).await.len(), before, "nothing is sent twice");
    stage.ingest.stop().await;
}
