//! `GET /v1/jobs`.

use flow::event::{EventKind, JobEvent, JobStatus};
use serde_json::{Value, json};
use store::Role;
use store::jobs::{ObservedEvent, project};
use test_kit::Ground;

use crate::stage::{Answer, PREFIX, Stage, accepted_event};

/// Does the orchestrator's work.
pub(crate) async fn project_one(ground: &Ground, cursor: i64, event: JobEvent) {
    let pool = ground.pool(Role::Orchestrator);
    let mut tx = pool.begin().await.unwrap();
    project(&mut tx, &[ObservedEvent { partition: 0, cursor, trace_id: None, event }]).await.unwrap();
    tx.commit().await.unwrap();
}

async fn submit(stage: &Stage, customer: &str, correlation: &str) -> String {
    let body = json!({ "customer_id": customer, "qty": 1 }).to_string();
    stage.ingest.api.order(&[("x-correlation-id", correlation)], &body).await.job()
}

fn ids(answer: &Answer) -> Vec<&str> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_listed_from_their_202_on_and_found_by_what_callers_know() {
    let stage = Stage::new().await;
    let api = &stage.ingest.api;
    let first = submit(&stage, "ada", "order-1").await;
    let second = submit(&stage, "bob", "order-2").await;
    let plain = api.post("/v1/flows/plain/jobs", &[], "{}").await.job();
    let all = api.get("/v1/jobs").await;
    assert_eq!(ids(&all), [&plain, &second, &first]);
    assert_eq!((&all.json["next"], &all.json["looked_back_to"]), (&Value::Null, &Value::Null));
    let listed = &all.json["jobs"][2];
    assert_eq!((&listed["status"], &listed["step"]), (&json!("accepted"), &json!("reserve")));
    assert_eq!((&listed["key"], &listed["correlation_id"]), (&json!("ada"), &json!("order-1")));
    assert_eq!(listed["links"]["self"], format!("{PREFIX}/v1/jobs/{first}"));

    for (query, found) in [
        ("flow=plain", vec![&plain]),
        ("key=ada", vec![&first]),
        ("correlation_id=order-2", vec![&second]),
        ("correlation_id=order-2&key=ada", vec![]),
        ("correlation_id=order-3", vec![]),
        ("until=2000-01-01T00:00:00Z", vec![]),
        ("since=2000-01-01T00:00:00Z&flow=order", vec![&second, &first]),
    ] {
        assert_eq!(ids(&api.get(&format!("/v1/jobs?{query}")).await), found, "{query}");
    }
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_job_is_at_the_step_of_which_its_events_tell() {
    let stage = Stage::new().await;
    let (ground, api) = (&stage.ground, &stage.ingest.api);
    let job = submit(&stage, "ada", "order-1").await;
    let accepted = accepted_event(ground, &job).await;
    let retrying = (EventKind::StepRetrying, JobStatus::Waiting, Some("reserve"));
    let cases = [
        (retrying, json!("reserve")),
        ((EventKind::StepSucceeded, JobStatus::Running, Some("reserve")), json!("charge")),
        ((EventKind::JobParked, JobStatus::NeedsAttention, Some("charge")), json!("charge")),
        ((EventKind::JobResumed, JobStatus::Running, None), json!("charge")),
        ((EventKind::JobCompensating, JobStatus::Compensating, None), json!("charge")),
        ((EventKind::JobFailed, JobStatus::Failed, None), Value::Null),
    ];
    for (number, ((kind, status, step), at)) in cases.into_iter().enumerate() {
        let step = step.map(str::to_owned);
        let event = JobEvent { kind, status, step, hop: u32::try_from(number).unwrap() + 1, ..accepted.clone() };
        project_one(ground, i64::try_from(number).unwrap(), event).await;
        let found = api.get(&format!("/v1/jobs?status=cancelled,{}", status.as_str())).await;
        assert_eq!(ids(&found), [&job], "{kind:?}");
        assert_eq!(found.json["jobs"][0]["step"], at, "{kind:?}");
    }
    assert!(ids(&api.get("/v1/jobs?status=running").await).is_empty());
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_go_on_and_what_is_malformed_is_refused() {
    let stage = Stage::new().await;
    let api = &stage.ingest.api;
    let mut jobs = Vec::new();
    for number in 0..5 {
        jobs.insert(0, submit(&stage, "ada", &number.to_string()).await);
    }
    let (mut paged, mut cursor) = (vec![], String::new());
    loop {
        let page = api.get(&format!("/v1/jobs?key=ada&limit=2&cursor={cursor}")).await;
        paged.extend(ids(&page).into_iter().map(str::to_owned));
        let Some(next) = page.json["next"].as_str() else { break };
        assert!(page.json["looked_back_to"].is_string(), "{}", page.text);
        cursor = next.to_owned();
    }
    assert_eq!(paged, jobs);
    for query in ["status=done", "since=yesterday", "limit=0", "limit=201", "cursor=x", "order=up", "status="] {
        let answer = api.get(&format!("/v1/jobs?{query}")).await;
        assert_eq!((answer.status, answer.problem()), (400, "bad-request"), "{query}: {}", answer.text);
    }
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stuck_jobs_are_listed_by_themselves_and_their_status_says_since_when() {
    let stage = Stage::new().await;
    let (ground, api) = (&stage.ground, &stage.ingest.api);
    let mut jobs = vec![];
    for number in 0..3 {
        let job = submit(&stage, "ada", &number.to_string()).await;
        let accepted = accepted_event(ground, &job).await;
        let (_, cursor) = ground.tell(&accepted).await;
        project_one(ground, cursor, accepted.clone()).await;
        let event = accepted.stuck(JobStatus::Accepted, cursor, 1_753_000_000_000);
        if number > 0 {
            let (_, cursor) = ground.tell(&event).await;
            project_one(ground, cursor, event).await;
            jobs.insert(0, job);
        }
    }
    let found = api.get("/v1/jobs?stuck=true").await;
    assert_eq!(ids(&found), jobs.iter().collect::<Vec<_>>());
    let since = json!("2025-07-20T08:26:40.000Z");
    assert_eq!((&found.json["jobs"][0]["stuck_since"], &found.json["jobs"][0]["status"]), (&since, &json!("accepted")));
    assert_eq!(ids(&api.get("/v1/jobs?stuck=true&flow=plain").await), Vec::<&str>::new());
    let page = api.get("/v1/jobs?stuck=true&limit=1").await;
    let next = page.json["next"].as_str().unwrap();
    assert_eq!(ids(&api.get(&format!("/v1/jobs?stuck=true&limit=1&cursor={next}")).await), [&jobs[1]]);
    test_kit::eventually(crate::stage::PATIENCE, "the status says so", async || {
        let status = api.get(&format!("/v1/jobs/{}", jobs[0])).await.json;
        (status["stuck_since"] == since && status["status"] == "accepted").then_some(())
    })
    .await;
    stage.ingest.stop().await;
}
