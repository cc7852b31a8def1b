//! The way back: acceptance, projection and event tail as one answer that never goes back in time.

use flow::decide::code;
use flow::event::{EventKind, JobEvent, JobStatus};
use serde_json::{Value, json};
use store::Role;
use store::jobs::{ObservedEvent, project};
use test_kit::{Ground, eventually};

use crate::stage::{Answer, INPUT, Ingest, PATIENCE, Stage, accepted_event, ground};

/// Does the orchestrator's work.
async fn project_one(ground: &Ground, at: (i32, i64), event: &JobEvent) {
    let observed = ObservedEvent { partition: at.0, cursor: at.1, trace_id: None, event: event.clone() };
    let pool = ground.pool(Role::Orchestrator);
    let mut tx = pool.begin().await.unwrap();
    project(&mut tx, &[observed]).await.unwrap();
    tx.commit().await.unwrap();
}

async fn until_cursor(stage: &Stage, job: &str, wanted: i64) -> Answer {
    eventually(PATIENCE, "the event is seen", async || {
        let answer = stage.ingest.api.get(&format!("/v1/jobs/{job}")).await;
        assert!(cursor(&answer) <= wanted, "{}", answer.text);
        (cursor(&answer) == wanted).then_some(answer)
    })
    .await
}

async fn until_status(stage: &Stage, job: &str, status: &str) -> Answer {
    eventually(PATIENCE, status, async || {
        let answer = stage.ingest.api.get(&format!("/v1/jobs/{job}")).await;
        (answer.json["status"] == status).then_some(answer)
    })
    .await
}

fn cursor(answer: &Answer) -> i64 {
    answer.header("etag").trim_matches('"').parse().unwrap()
}

fn after(accepted: &JobEvent, kind: EventKind, status: JobStatus, hop: u32) -> JobEvent {
    let step = matches!(kind, EventKind::StepSucceeded).then(|| "reserve".to_owned());
    JobEvent { kind, status, hop, step, at_ms: accepted.at_ms + i64::from(hop), ..accepted.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_follows_the_tail_before_anything_is_projected() {
    let stage = Stage::new().await;
    let job = stage.ingest.api.order(&[], INPUT).await.job();
    let (address, api) = (format!("/v1/jobs/{job}"), &stage.ingest.api);
    let answer = api.get(&address).await;
    assert_eq!((&answer.json["status"], answer.header("retry-after")), (&json!("accepted"), "1"));

    let accepted = accepted_event(&stage.ground, &job).await;
    let (_, first) = stage.ground.tell(&accepted).await;
    let (_, second) = stage.ground.tell(&after(&accepted, EventKind::StepSucceeded, JobStatus::Running, 1)).await;
    let answer = until_status(&stage, &job, "running").await;
    assert_eq!(answer.header("etag"), format!("\"{second}\""));
    assert_eq!(answer.json["steps"][0]["status"], "succeeded");
    assert_eq!(answer.json["steps"][1]["status"], "pending");
    assert_eq!(answer.json["progress"], json!({ "done": 1, "total": 2, "percent": 50 }));

    let tag = format!("\"{second}\"");
    for tags in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let unchanged = api.get_with(&address, &[("if-none-match", &tags)]).await;
        assert_eq!((unchanged.status, unchanged.text.as_str(), unchanged.header("etag")), (304, "", tag.as_str()));
    }
    let events = api.get(&format!("{address}/events")).await;
    let cursors: Vec<&Value> = events.json["events"].as_array().unwrap().iter().map(|event| &event["cursor"]).collect();
    assert_eq!(cursors, [&json!(first.to_string()), &json!(second.to_string())]);
    assert_eq!(events.json["next"], second.to_string());
    let page = api.get(&format!("{address}/events?after={first}")).await;
    assert_eq!(page.json["events"][0]["type"], "step.succeeded");
    assert_eq!(page.json["events"].as_array().unwrap().len(), 1);
    let page = api.get(&format!("{address}/events?after={second}")).await;
    assert_eq!(page.json, json!({ "events": [], "next": second.to_string() }));

    let result = Some(json!({ "tracking": "T1" }));
    let end = after(&accepted, EventKind::JobSucceeded, JobStatus::Succeeded, 2);
    stage.ground.tell(&JobEvent { data: result.clone(), ..end }).await;
    let answer = until_status(&stage, &job, "succeeded").await;
    assert_eq!((answer.header("retry-after"), answer.json.get("result")), ("", result.as_ref()));
    let changed = api.get_with(&address, &[("if-none-match", &tag)]).await;
    assert_eq!(changed.status, 200);
    let answer = api.get(&format!("{address}/result")).await;
    assert_eq!((answer.status, Some(&answer.json)), (200, result.as_ref()));
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_is_answered_as_the_job_ended() {
    let stage = Stage::new().await;
    let failure = |step: &str, code: &str, status: Value| {
        Some(json!({ "step": step, "code": code, "message": "no luck", "status": status, "attempts": 3 }))
    };
    let (failed, step_failed) = ((EventKind::JobFailed, JobStatus::Failed), code::STEP_FAILED);
    let cases = [
        ((EventKind::JobAccepted, JobStatus::Accepted), None, 404, "not-finished"),
        ((EventKind::StepRetrying, JobStatus::Waiting), None, 404, "not-finished"),
        ((EventKind::JobCompensating, JobStatus::Compensating), None, 404, "not-finished"),
        ((EventKind::JobParked, JobStatus::NeedsAttention), None, 404, "not-finished"),
        (failed, failure("charge", step_failed, json!(402)), 502, "step-failed"),
        (failed, failure("reserve", step_failed, json!(409)), 409, "step-failed"),
        (failed, failure("reserve", step_failed, json!(500)), 502, "step-failed"),
        (failed, failure("", code::DEADLINE_EXCEEDED, Value::Null), 504, "deadline-exceeded"),
        ((EventKind::JobCancelled, JobStatus::Cancelled), failure("", code::CANCELLED, Value::Null), 409, "cancelled"),
    ];
    for ((kind, status), data, code, problem) in cases {
        let job = stage.ingest.api.order(&[], INPUT).await.job();
        let accepted = accepted_event(&stage.ground, &job).await;
        stage.ground.tell(&accepted).await;
        if kind != EventKind::JobAccepted {
            stage.ground.tell(&JobEvent { data: data.clone(), ..after(&accepted, kind, status, 1) }).await;
        }
        until_status(&stage, &job, status.as_str()).await;
        let answer = stage.ingest.api.get(&format!("/v1/jobs/{job}/result")).await;
        assert_eq!((answer.status, answer.problem()), (code, problem), "{kind:?}: {}", answer.text);
        assert_eq!(answer.json["job"], job, "{}", answer.text);
        if problem == "not-finished" {
            assert_eq!(answer.header("retry-after"), "1");
        } else {
            assert_eq!((&answer.json["detail"], &answer.json["attempts"]), (&json!("no luck"), &json!(3)));
            assert_eq!(answer.json["trace_id"].as_str().unwrap().len(), 32);
        }
    }
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_goes_back_whatever_comes_first() {
    let stage = Stage::new().await;
    let job = stage.ingest.api.order(&[], INPUT).await.job();
    let accepted = accepted_event(&stage.ground, &job).await;
    let events = [
        accepted.clone(),
        after(&accepted, EventKind::StepSucceeded, JobStatus::Running, 1),
        after(&accepted, EventKind::JobSucceeded, JobStatus::Succeeded, 2),
    ];
    let (mut places, mut highest) = (Vec::new(), -1);
    // The tail is ahead of the projection, then the projection comes after.
    for event in &events {
        let place = stage.ground.tell(event).await;
        assert!(place.1 > highest);
        highest = place.1;
        let answer = until_cursor(&stage, &job, highest).await;
        assert_eq!(answer.json["status"], event.status.as_str());
        places.push(place);
    }
    for (place, event) in places.iter().zip(&events) {
        project_one(&stage.ground, *place, event).await;
        let answer = stage.ingest.api.get(&format!("/v1/jobs/{job}")).await;
        assert_eq!((&answer.json["status"], cursor(&answer)), (&json!("succeeded"), highest));
    }
    // A second final event would contradict the first.
    let (_, late) = stage.ground.tell(&after(&accepted, EventKind::JobFailed, JobStatus::Failed, 3)).await;
    assert_eq!(until_cursor(&stage, &job, late).await.json["status"], "succeeded");
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_tail_missed_comes_from_the_projection_and_what_is_not_projected_from_the_tail() {
    let ground = ground().await;
    let before = Ingest::start(&ground, |_| {}).await;
    before.ready().await;
    let job = before.api.order(&[], INPUT).await.job();
    before.stop().await;
    let accepted = accepted_event(&ground, &job).await;
    let running = after(&accepted, EventKind::StepSucceeded, JobStatus::Running, 1);
    // While no ingest runs, the job goes on and the orchestrator projects it.
    for event in [&accepted, &running] {
        let place = ground.tell(event).await;
        project_one(&ground, place, event).await;
    }
    let stage = Stage { ingest: Ingest::start(&ground, |_| {}).await, ground };
    stage.ingest.ready().await;
    let answer = stage.ingest.api.get(&format!("/v1/jobs/{job}")).await;
    assert_eq!(answer.json["status"], "running");
    stage.ground.tell(&after(&accepted, EventKind::JobSucceeded, JobStatus::Succeeded, 2)).await;
    let answer = until_status(&stage, &job, "succeeded").await;
    assert_eq!(answer.json["steps"][0]["status"], "succeeded");
    let events = stage.ingest.api.get(&format!("/v1/jobs/{job}/events")).await;
    let kinds: Vec<&Value> = events.json["events"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
    assert_eq!(kinds, ["job.accepted", "step.succeeded", "job.succeeded"]);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_does_not_go_back_behind_what_was_told_before() {
    let stage = Stage::new().await;
    let job = stage.ingest.api.order(&[], INPUT).await.job();
    let accepted = accepted_event(&stage.ground, &job).await;
    stage.ground.tell(&accepted).await;
    let running = after(&accepted, EventKind::StepSucceeded, JobStatus::Running, 1);
    let (_, told) = stage.ground.tell(&running).await;
    until_cursor(&stage, &job, told).await;
    let Stage { ground, ingest } = stage;
    ingest.stop().await;
    // Nothing is projected.
    let ingest = Ingest::start(&ground, |_| {}).await;
    let first = eventually(PATIENCE, "an answer", async || {
        let answer = ingest.api.get(&format!("/v1/jobs/{job}")).await;
        (answer.status == 200).then_some(answer)
    });
    let first = first.await;
    assert_eq!((&first.json["status"], cursor(&first)), (&json!("running"), told));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_was_dropped_from_memory_is_not_answered_from_before_that() {
    let stage = Stage::with(|config| config.recent_jobs_max = 1).await;
    let job = stage.ingest.api.order(&[], INPUT).await.job();
    let accepted = accepted_event(&stage.ground, &job).await;
    let first = stage.ground.tell(&accepted).await;
    let end = after(&accepted, EventKind::JobSucceeded, JobStatus::Succeeded, 1);
    let last = stage.ground.tell(&end).await;
    until_status(&stage, &job, "succeeded").await;
    let other = stage.ingest.api.order(&[], INPUT).await.job();
    stage.ground.tell(&accepted_event(&stage.ground, &other).await).await;
    let address = format!("/v1/jobs/{job}");
    let waited_for = eventually(PATIENCE, "the job is dropped", async || {
        let answer = stage.ingest.api.get(&address).await;
        (answer.status != 200).then_some(answer)
    });
    let answer = waited_for.await;
    assert_eq!((answer.status, answer.problem(), answer.header("retry-after")), (503, "not-ready", "1"));
    project_one(&stage.ground, first, &accepted).await;
    assert_eq!(stage.ingest.api.get(&address).await.status, 503, "the projection is behind");
    project_one(&stage.ground, last, &end).await;
    assert_eq!(stage.ingest.api.get(&address).await.json["status"], "succeeded");
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_is_served_with_the_routes_of_the_active_flows() {
    let stage = Stage::new().await;
    let answer = stage.ingest.api.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{}", answer.text);
    assert_eq!(answer.json["openapi"], "3.1.0");
    let input = &answer.json["paths"]["/orders"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    let input = input["$ref"].as_str().and_then(|target| answer.json.pointer(target.trim_start_matches('#'))).unwrap();
    assert_eq!(input["required"], json!(["customer_id", "qty"]));
    assert!(answer.json["paths"].get("/v1/flows/plain/jobs").is_some(), "{}", answer.text);
    stage.ingest.stop().await;
}
