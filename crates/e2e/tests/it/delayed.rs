//! Jobs that start later.

use flow::event::JobStatus;
use flow::id::JobId;
use serde_json::{Value, json};
use test_kit::{eventually, http_client};

use crate::client::{order, small_order};
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

/// Submits a job; `query` says when it is to start.
pub(crate) async fn submit(stage: &mut Stage, flow: &str, query: &str, input: &Value) -> JobId {
    let url = format!("{}/v1/flows/{flow}/jobs?{query}", stage.system.api());
    let answer = http_client().post(url).json(input).send().await.unwrap().error_for_status().unwrap();
    let job = answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().parse().unwrap();
    stage.system.note_accepted([job]);
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_starts_when_its_time_has_come_and_a_cancelled_one_never() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let later = submit(&mut stage, "saga", "delay=3s", &small_order("c-1", json!({}))).await;
    let never = submit(&mut stage, "order", "delay=300d", &order("c-2", json!({}))).await;
    let client = stage.system.client();
    eventually(PATIENCE, "its status says that it waits, and until when", async || {
        let status = client.status(&never.to_string()).await.ok()?;
        let until = status.steps.iter().find_map(|step| step.waiting_for.as_ref()?.until.clone());
        (status.status == client::JobState::Waiting && until.is_some()).then_some(())
    })
    .await;
    client.cancel(&never.to_string(), Some("not wanted any more")).await.unwrap();
    let ends = stage.ends_of([later, never]).await;
    assert_eq!((ends[&later].status, ends[&never].status), (JobStatus::Succeeded, JobStatus::Cancelled));

    // Both times by clocks of this machine.
    assert!(ends[&later].at_ms >= ends[&later].accepted_at_ms + 3_000, "{:?}", ends[&later]);
    let told = client.events(&never.to_string(), None).await.unwrap().events;
    let kinds: Vec<&str> = told.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["job.accepted", "step.waiting", "job.cancelled"]);
    stage.finish().await;
}
