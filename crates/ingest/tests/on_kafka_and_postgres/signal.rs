//! Signals over HTTP: what is refused, and what goes to the orchestrator.

use events::decode_wait;
use events::wait::{Signal, Wait};
use flow::event::{EventKind, JobEvent, JobStatus};
use serde_json::{Value, json};
use test_kit::eventually;

use crate::stage::{Answer, PATIENCE, PREFIX, Stage, accepted_event};

const APPROVING: &str = r#"
flow: approving
steps:
  - { id: approve, wait: { signal: approval, approve: { by: [ann, bob] }, timeout: 2d } }
  - id: count
    wait: { signal: count, schema: { type: object, required: [n], properties: { n: { type: integer } } } }
  - { id: poke, wait: { signal: poke } }
"#;

/// A stage with a flow that waits, and a job of it.
async fn stage() -> (Stage, String) {
    let stage = Stage::new().await;
    stage.ground.apply(APPROVING).await;
    let answer = eventually(PATIENCE, "the flow is known", async || {
        let answer = stage.ingest.api.post("/v1/flows/approving/jobs", &[], "{}").await;
        (answer.status == 202).then_some(answer)
    })
    .await;
    (stage, answer.job())
}

async fn send(stage: &Stage, job: &str, name: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    stage.ingest.api.post(&format!("/v1/jobs/{job}/signals/{name}"), headers, body).await
}

async fn sent(stage: &Stage) -> Vec<Signal> {
    let mut signals = Vec::new();
    for record in stage.ground.outbox(&stage.ground.topics.waits()) {
        let wait = stage.ground.reader.read(record.value.as_deref(), decode_wait).await.unwrap();
        let Wait::Signal(signal) = wait else { panic!("{wait:?}") };
        assert_eq!(record.key.as_deref(), Some(signal.job.to_string().as_bytes()), "beside the job's holds");
        signals.push(signal);
    }
    signals
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_goes_to_the_jobs_holds_under_the_callers_key() {
    let (stage, job) = stage().await;
    let yes = r#"{"decision":"approved","by":"ann"}"#;
    let answer = send(&stage, &job, "approval", &[("idempotency-key", "\"once\"")], yes).await;
    assert_eq!((answer.job(), answer.header("location")), (job.clone(), &*format!("{PREFIX}/v1/jobs/{job}")));
    assert_eq!(send(&stage, &job, "poke", &[], "").await.job(), job);
    let signals = sent(&stage).await;
    let [approval, poke] = signals.as_slice() else { panic!("{signals:?}") };
    assert_eq!(
        (approval.name.as_str(), approval.id.as_str(), approval.tenant.as_str()),
        ("approval", "once", "default")
    );
    assert_eq!(approval.payload, Some(json!({ "decision": "approved", "by": "ann" })));
    assert_eq!((poke.name.as_str(), &poke.payload), ("poke", &None));
    assert_eq!(poke.id.len(), 36, "without a key each request is a signal of its own");
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_was_taken_in_is_answered_again_and_another_one_under_its_key_is_refused() {
    let (stage, job) = stage().await;
    stage.ground.sql(&format!(
        "insert into orchestrator.signals (job, name, id, payload) values ('{job}', 'count', 'k', '{{\"n\": 1}}')"
    ));
    let key = [("idempotency-key", "\"k\"")];
    let again = send(&stage, &job, "count", &key, r#"{"n":1}"#).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"));
    let other = send(&stage, &job, "count", &key, r#"{"n":2}"#).await;
    assert_eq!((other.status, other.problem()), (422, "idempotency-key-reused"));
    assert_eq!(sent(&stage).await, [], "nothing is sent twice");
    stage.ground.sql(&format!(
        "insert into orchestrator.signals (job, name, id)
         select '{job}', 'count', number::text from generate_series(1, 1000) as number"
    ));
    let full = send(&stage, &job, "count", &[], r#"{"n":3}"#).await;
    assert_eq!((full.status, full.problem()), (429, "quota-exceeded"));
    assert_eq!(full.json["violated-policies"], json!(["signals"]), "{}", full.text);
    // Callbacks are bounded by themselves.
    stage.ground.sql("update orchestrator.signals set name = 'callback:' || id || ':1:0' where id in ('999', '1000')");
    assert_eq!(send(&stage, &job, "count", &[], r#"{"n":3}"#).await.status, 202);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_with_the_reason_and_nothing_is_sent() {
    let (stage, job) = stage().await;
    let refused = |answer: Answer| {
        let detail = answer.json["detail"].as_str().unwrap_or_default().to_owned();
        (answer.status, answer.problem().to_owned(), detail)
    };
    for (name, body, status, problem, detail) in [
        ("aproval", "{}", 404, "unknown-signal", "Its signals: `approval`, `count`, `poke`"),
        ("count", r#"{"n":"x"}"#, 422, "schema-violation", "#/n"),
        ("count", "", 422, "schema-violation", "null"),
        ("approval", r#"{"decision":"approved","by":"eve"}"#, 422, "schema-violation", "#/by"),
        ("count", "{", 400, "invalid-json", "column"),
    ] {
        let (found_status, found, told) = refused(send(&stage, &job, name, &[], body).await);
        assert_eq!((found_status, found.as_str()), (status, problem), "{name} {body}: {told}");
        assert!(told.contains(detail), "{told}");
    }
    let large = format!("{{\"n\":1,\"x\":\"{}\"}}", "x".repeat(64 * 1024));
    assert_eq!(refused(send(&stage, &job, "count", &[], &large).await).1, "payload-too-large");
    let nobody = "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d";
    assert_eq!(refused(send(&stage, nobody, "poke", &[], "").await).1, "unknown-job");
    assert_eq!(sent(&stage).await, []);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_over_takes_no_signal_and_one_that_waits_says_for_what() {
    let (stage, job) = stage().await;
    let accepted = accepted_event(&stage.ground, &job).await;
    stage.ground.tell(&accepted).await;
    let waits = JobEvent {
        kind: EventKind::StepWaiting,
        status: JobStatus::Waiting,
        hop: 1,
        step: Some("approve".to_owned()),
        reason: Some(flow::slip::HoldReason::Signal),
        signal: Some("approval".to_owned()),
        next_attempt_after_ms: Some(60_000),
        ..accepted.clone()
    };
    stage.ground.tell(&waits).await;
    let status = until(&stage, &job, "waiting").await;
    let step = &status["steps"][0];
    assert_eq!((&step["status"], &step["waiting_for"]["signal"]), (&json!("waiting"), &json!("approval")));
    assert!(step["waiting_for"]["until"].is_string(), "{step}");
    let events = stage.ingest.api.get(&format!("/v1/jobs/{job}/events")).await.json;
    assert_eq!(
        (&events["events"][1]["reason"], &events["events"][1]["signal"]),
        (&json!("signal"), &json!("approval"))
    );
    let decided = JobEvent {
        kind: EventKind::StepSucceeded,
        status: JobStatus::Running,
        hop: 2,
        actor: Some("ann".to_owned()),
        ..waits.clone()
    };
    stage.ground.tell(&decided).await;
    let step = until(&stage, &job, "running").await["steps"][0].clone();
    assert_eq!(
        (&step["status"], &step["decided_by"], &step["waiting_for"]),
        (&json!("succeeded"), &json!("ann"), &Value::Null)
    );
    let end = JobEvent { kind: EventKind::JobSucceeded, status: JobStatus::Succeeded, hop: 3, step: None, ..accepted };
    stage.ground.tell(&end).await;
    until(&stage, &job, "succeeded").await;
    let late = send(&stage, &job, "poke", &[], "").await;
    assert_eq!((late.status, late.problem()), (409, "already-finished"));
    stage.ground.sql(&format!(
        "insert into orchestrator.signals (job, name, id, used_at) values ('{job}', 'poke', 'k', now())"
    ));
    let key = [("idempotency-key", "\"k\"")];
    let again = send(&stage, &job, "poke", &key, "").await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"), "{}", again.text);
    let other = send(&stage, &job, "poke", &key, "1").await;
    assert_eq!((other.status, other.problem()), (422, "idempotency-key-reused"), "{}", other.text);
    stage.ingest.stop().await;
}

async fn until(stage: &Stage, job: &str, status: &str) -> Value {
    eventually(PATIENCE, status, async || {
        let answer = stage.ingest.api.get(&format!("/v1/jobs/{job}")).await;
        (answer.json["status"] == status).then_some(answer.json)
    })
    .await
}
