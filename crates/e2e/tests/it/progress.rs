//! Steps that tell how far they are, from the service through ingest and Kafka to the status.

use std::time::Duration;

use flow::event::JobStatus;
use flow::id::JobId;
use serde_json::{Value, json};
use test_kit::{Answer, Receiver, eventually, http_client, repository};

use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

/// Longer than any test: the call is broken off.
const NEVER: Duration = Duration::from_secs(3_600);

async fn stage(receiver: &Receiver) -> Stage {
    let url = receiver.url();
    Stage::start_with(|builder| {
        let builder = builder.callbacks().flows(repository().join("crates/e2e/progress"));
        builder.variable("SERVICE_URL", url)
    })
    .await
}

/// The body of the first request to this path.
async fn told(receiver: &Receiver, path: &str) -> Value {
    eventually(PATIENCE, path, async || {
        let requests = receiver.requests();
        requests.iter().find(|request| request.uri.path() == path).map(|request| request.json())
    })
    .await
}

async fn put(url: &Value, body: &Value) -> u16 {
    let request = http_client().put(url.as_str().unwrap()).header("content-type", "application/json");
    request.body(body.to_string()).send().await.unwrap().status().as_u16()
}

/// The status once this holds of it.
async fn until(stage: &Stage, job: JobId, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(PATIENCE, what, async || stage.system.status(job).await.ok().filter(|status| holds(status))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_shows_what_services_tell_while_a_step_waits_and_while_it_runs() {
    let _turn = beside_others().await;
    let receiver = Receiver::start().await;
    receiver.answer_with(|request| match request.uri.path() {
        "/render" => Answer::status(202),
        _ => Answer::status(200).after(NEVER),
    });
    let mut stage = stage(&receiver).await;
    let job = stage.submit("slow", &json!({})).await;

    let render = told(&receiver, "/render").await;
    assert_eq!(put(&render["tell"], &json!({ "percent": 30, "message": "three pages" })).await, 204);
    let status = until(&stage, job, "30 %", |status| status["progress"]["message"] == "three pages").await;
    assert_eq!(status["progress"], json!({ "done": 0, "total": 2, "percent": 15, "message": "three pages" }));
    assert_eq!(status["steps"][0]["progress"], json!({ "percent": 30, "message": "three pages" }));
    // Backwards: the message is news, the percent stays.
    assert_eq!(put(&render["tell"], &json!({ "percent": 10, "message": "again" })).await, 204);
    let status = until(&stage, job, "the next message", |status| status["progress"]["message"] == "again").await;
    assert_eq!(status["progress"]["percent"], 15);

    let callback = http_client().post(render["then"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(callback.status().as_u16(), 202);
    let print = told(&receiver, "/print").await;
    // No event tells of an attempt under way this soon: it is known by the report of the worker.
    let status = until(&stage, job, "the attempt", |status| status["steps"][1]["status"] == "running").await;
    assert_eq!((&status["steps"][1]["attempts"], status["steps"][1]["started_at"].is_string()), (&json!(1), true));
    assert_eq!(status["progress"], json!({ "done": 1, "total": 2, "percent": 50 }), "the first step is over");
    assert_eq!(put(&print["tell"], &json!({ "percent": 50 })).await, 204);
    until(&stage, job, "75 %", |status| status["progress"]["percent"] == 75).await;
    assert_eq!(put(&render["tell"], &json!({ "percent": 99, "message": "late" })).await, 204);
    assert_eq!(put(&print["tell"], &json!({ "percent": 60 })).await, 204);
    let status = until(&stage, job, "80 %", |status| status["progress"]["percent"] == 80).await;
    assert_eq!(status["progress"].get("message"), None, "a step that is over is not heard: {status}");

    stage.system.client().cancel(&job.to_string(), None).await.unwrap();
    assert_eq!(stage.end_of(job).await.status, JobStatus::Cancelled);
    eventually(PATIENCE, "reports of a job that has ended are refused", async || {
        (put(&print["tell"], &json!({ "percent": 70 })).await == 409).then_some(())
    })
    .await;
    stage.finish().await;
}
