//! A person sends a parked job on, and starts a finished one anew.

use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use serde_json::json;
use test_kit::{eventually, psql};

use crate::client::{send, small_order};
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

/// Waits until the job was parked so many times, and is.
async fn until_parked(stage: &Stage, job: JobId, times: usize) {
    eventually(PATIENCE, "the job is parked", async || {
        let client = test_kit::http_client();
        let events = send(client.get(format!("{}/v1/jobs/{job}/events", stage.system.api()))).await;
        let parked = events.body["events"].as_array().unwrap().iter().filter(|event| event["type"] == "job.parked");
        let status = stage.system.status(job).await.unwrap();
        (parked.count() == times && status["status"] == "needs_attention").then_some(())
    })
    .await;
}

/// Asks twice at once.
async fn retry_twice(stage: &Stage, job: JobId) {
    let client = test_kit::http_client();
    let url = format!("{}/v1/jobs/{job}/retry", stage.system.api());
    let (one, other) = tokio::join!(send(client.post(&url)), send(client.post(&url)));
    for answer in [&one, &other] {
        // Whoever comes when the job is under way already is told so.
        let expected = answer.status == 202 || (answer.status == 409 && answer.problem() == "still-running");
        assert!(expected, "{answer:?}");
    }
    assert!(one.status == 202 || other.status == 202, "{one:?}, {other:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_job_goes_on_from_where_it_stopped_once_however_often_it_is_asked() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let input = small_order("c-1", json!({ "inventory": "undo_error", "payment": "declined" }));
    let job = stage.submit("patient", &input).await;
    until_parked(&stage, job, 1).await;
    // Nothing is mended yet: it comes to rest again, and the words for its first rest must not reach the second.
    retry_twice(&stage, job).await;
    until_parked(&stage, job, 2).await;
    stage.shop.mend(true);
    retry_twice(&stage, job).await;
    let end = stage.end_of(job).await;
    assert_eq!(end.status, JobStatus::Failed);
    let status = stage.status_at_end(job).await;
    assert_eq!((&status["compensation"]["undone"], &status["error"]["step"]), (&json!(["reserve"]), &json!("charge")));
    let left = stage.finish().await;
    let count = |kind| left.tokens.events.iter().filter(|event| event.job == job && event.kind == kind).count();
    let counts = [EventKind::JobParked, EventKind::JobResumed, EventKind::StepCompensated, EventKind::JobFailed];
    assert_eq!(counts.map(count), [2, 2, 1, 1]);
    assert_eq!(left.tokens.dead_letters, 0);
}

/// Waits until the job's token rests for this reason, and lets the rest last for longer than any test. Returns its hop.
async fn until_it_rests_for_long(stage: &Stage, job: JobId, reason: &str) -> u32 {
    let rest = format!(
        "update orchestrator.holds set release_at = now() + interval '1 day'
         where job = '{job}' and reason = '{reason}' and release_at < now() + interval '1 hour' returning hop"
    );
    eventually(PATIENCE, reason, async || {
        psql(stage.system.database_url(), &rest).unwrap().lines().next()?.parse().ok()
    })
    .await
}

/// Sends the job on from the command line, once the API has read that it waits.
async fn send_on(stage: &Stage, job: JobId) {
    eventually(PATIENCE, "the API has read that the job waits", async || {
        (stage.system.status(job).await.unwrap()["status"] == "waiting").then_some(())
    })
    .await;
    let arguments = ["jobs", "retry", &job.to_string(), "--url", &stage.system.api()];
    assert_eq!(test_kit::meanwhile(&arguments, &[]).await.unwrap().trim(), job.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waits_for_its_next_attempt_is_sent_on_at_once() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let job = stage.submit("patient", &small_order("c-1", json!({ "inventory": "busy:600" }))).await;
    until_it_rests_for_long(&stage, job, "backoff").await;
    send_on(&stage, job).await;
    assert_eq!(stage.end_of(job).await.status, JobStatus::Succeeded);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_looks_for_what_is_missing_is_let_look_at_once() {
    let _turn = beside_others().await;
    let flows = tempfile::tempdir().unwrap();
    let step = "  - { id: call, http: { method: GET, url: \"{{ env.NOBODY_HAS_SET_THIS }}\" } }";
    let flow = format!("flow: lacking\ninput: {{ type: object }}\nsteps:\n{step}\n");
    std::fs::write(flows.path().join("lacking.yaml"), flow).unwrap();
    let mut stage = Stage::start_with(|builder| builder.flows(flows.path())).await;
    let job = stage.submit("lacking", &json!({})).await;
    let first = until_it_rests_for_long(&stage, job, "missing-step").await;
    // Some looks are told of, and others not: each has to be found.
    let mut hop = first;
    for _ in 0..3 {
        send_on(&stage, job).await;
        let next = until_it_rests_for_long(&stage, job, "missing-step").await;
        assert!(next > hop, "it has looked again: {next} after {hop}");
        hop = next;
    }
    stage.system.except([job]);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_starts_a_finished_job_anew() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let first = stage.submit("saga", &small_order("c-1", json!({ "shipping": "error" }))).await;
    assert_eq!(stage.end_of(first).await.status, JobStatus::Failed);
    stage.shop.mend(true);
    let arguments = ["jobs", "retry", &first.to_string(), "--key", "once", "--url", &stage.system.api()];
    let told = test_kit::meanwhile(&arguments, &[]).await.unwrap();
    let anew: JobId = told.trim().parse().unwrap();
    stage.system.note_accepted([anew]);
    assert_eq!(stage.end_of(anew).await.status, JobStatus::Succeeded);
    assert_eq!(stage.status_at_end(anew).await["retry_of"], first.to_string());
    stage.finish().await;
}
