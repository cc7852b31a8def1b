//! Results that a flow gives for a time only.

use flow::event::{EventKind, JobEvent, JobStatus};
use serde_json::json;
use test_kit::eventually;

use crate::stage::{Ingest, PATIENCE, Stage, accepted_event};
use crate::stream_client::Sse;
use crate::streams_of_all::now;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_whose_time_is_over_is_gone_from_wherever_it_stood() {
    let stage = Stage::new().await;
    let (ground, api) = (&stage.ground, &stage.ingest.api);
    ground.apply("flow: brief\nresult_ttl: 1h\nsteps:\n  - { id: one, native: one }\n").await;
    let flow = eventually(PATIENCE, "the flow is known", async || {
        let flow = api.get("/v1/flows/brief").await;
        (flow.status == 200).then_some(flow.json)
    })
    .await;
    assert_eq!(flow["result_ttl_s"], 3_600);
    // It keeps next to nothing: what it is asked for it reads from Kafka.
    let forgetful = Ingest::start(ground, |config| config.stream_log_bytes_max = 1).await;
    forgetful.ready().await;
    for (ago_ms, is_gone) in [(0, false), (3_700_000, true)] {
        let begin = now(&stage.ingest).await;
        let job = api.post("/v1/flows/brief/jobs", &[("idempotency-key", &format!("\"{ago_ms}\""))], "{}").await.job();
        let accepted = accepted_event(ground, &job).await;
        ground.tell(&accepted).await;
        let end = JobEvent {
            kind: EventKind::JobSucceeded,
            status: JobStatus::Succeeded,
            hop: 1,
            at_ms: accepted.at_ms - ago_ms,
            data: Some(json!({ "secret": 17 })),
            ..accepted
        };
        ground.tell(&end).await;
        let path = format!("/v1/jobs/{job}");
        let status = eventually(PATIENCE, "the job has ended", async || {
            let status = api.get(&path).await.json;
            (status["status"] == "succeeded").then_some(status)
        })
        .await;
        assert!(status["result_expires_at"].is_string(), "{status}");
        let result = api.get(&format!("{path}/result")).await;
        let events = api.get(&format!("{path}/events")).await;
        let again = [("prefer", "wait=5"), ("idempotency-key", &format!("\"{ago_ms}\""))];
        let again = api.post("/v1/flows/brief/jobs", &again, "{}").await;
        for answer in [&result, &again] {
            assert_eq!(answer.status, if is_gone { 410 } else { 200 }, "{}", answer.text);
            assert_eq!(answer.header("sunset").ends_with(" GMT"), !is_gone, "{:?}", answer.headers);
        }
        let mut told = vec![status.to_string(), result.text, events.text, again.text];
        for api in [api, &forgetful.api] {
            let mut stream = Sse::open(api, "/v1/events?status=succeeded", Some(&begin)).await;
            told.push(stream.event().await.unwrap().json().to_string());
            let page = api.get(&format!("/v1/events?status=succeeded&after={begin}&wait=60")).await;
            assert_eq!(page.json["events"].as_array().map(Vec::len), Some(1), "{}", page.text);
            told.push(page.text);
        }
        for text in &told {
            assert_eq!(text.contains("secret"), !is_gone, "{text}");
        }
    }
    forgetful.stop().await;
    stage.ingest.stop().await;
}
