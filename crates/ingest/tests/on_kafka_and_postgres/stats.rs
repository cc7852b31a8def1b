//! `GET /v1/flows/{flow}/stats`, and what follows from it: the time until a job's end, and when to ask again.

use flow::event::{EventKind, JobEvent, JobStatus};
use serde_json::{Value, json};
use store::Role;
use store::jobs::{ObservedEvent, project};
use test_kit::{Ground, eventually, sample_event, sample_job};

use crate::stage::{INPUT, PATIENCE, Stage, accepted_event};

/// Does the orchestrator's work for jobs of `order` that have taken 10 s and 30 s for their steps, and ended now.
async fn project_ended(ground: &Ground, jobs: u32) {
    let pool = ground.pool(Role::Orchestrator);
    let now_ms = store::watched::now_ms(&pool).await.unwrap();
    let mut events = vec![];
    for _ in 0..jobs {
        let job = sample_job();
        let mut tell = |kind, status, step: Option<&str>, ago_ms| {
            let step = step.map(str::to_owned);
            let hop = u32::from(kind != EventKind::JobAccepted);
            let mut event = JobEvent { step, at_ms: now_ms - ago_ms, ..sample_event(job, kind, status, hop) };
            event.facts.accepted_at_ms = now_ms - 40_000;
            let cursor = i64::try_from(events.len()).unwrap();
            events.push(ObservedEvent { partition: 0, cursor, trace_id: None, event });
        };
        tell(EventKind::JobAccepted, JobStatus::Accepted, None, 40_000);
        tell(EventKind::StepSucceeded, JobStatus::Running, Some("reserve"), 30_000);
        tell(EventKind::StepSucceeded, JobStatus::Running, Some("charge"), 0);
        tell(EventKind::JobSucceeded, JobStatus::Succeeded, None, 0);
    }
    let mut tx = pool.begin().await.unwrap();
    project(&mut tx, &events).await.unwrap();
    tx.commit().await.unwrap();
}

/// In milliseconds, as exact as the bins.
#[track_caller]
fn is_about(found: &Value, wanted: f64) {
    let found = found.as_f64().unwrap();
    assert!((found - wanted).abs() <= wanted / 8.0, "{found}, not {wanted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_tells_how_its_jobs_ended_and_how_long_each_step_took() {
    let stage = Stage::new().await;
    let api = &stage.ingest.api;
    let none = api.get("/v1/flows/order/stats").await;
    assert_eq!((none.status, &none.json["jobs"]["ended"]), (200, &json!(0)), "{}", none.text);
    assert_eq!(
        none.json["steps"][0],
        json!({ "id": "reserve", "succeeded": 0, "skipped": 0, "failed": 0, "duration_ms": null })
    );

    project_ended(&stage.ground, 20).await;
    let stats = api.get("/v1/flows/order/stats?window=30m").await.json;
    let jobs = &stats["jobs"];
    assert_eq!([&jobs["accepted"], &jobs["ended"], &jobs["succeeded"], &jobs["failed"]], [20, 20, 20, 0]);
    let per_s = jobs["ended_per_s"].as_f64().unwrap();
    assert!((20.0 / 1_860.0..=20.0 / 1_799.0).contains(&per_s), "{stats:#}");
    is_about(&jobs["duration_ms"]["p50"], 40_000.0);
    let steps = stats["steps"].as_array().unwrap();
    assert_eq!((steps.len(), &steps[0]["id"], &steps[1]["id"]), (2, &json!("reserve"), &json!("charge")));
    is_about(&steps[0]["duration_ms"]["p99"], 10_000.0);
    is_about(&steps[1]["duration_ms"]["mean"], 30_000.0);

    for query in ["window=1s", "window=25h", "window=soon", "windw=1h"] {
        let answer = api.get(&format!("/v1/flows/order/stats?{query}")).await;
        assert_eq!((answer.status, answer.problem()), (400, "bad-request"), "{query}");
    }
    assert_eq!(api.get("/v1/flows/none/stats").await.problem(), "unknown-flow");
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_end_counts_as_what_it_is_and_steps_of_other_versions_come_last() {
    let stage = Stage::new().await;
    let pool = stage.ground.pool(Role::Orchestrator);
    let at_ms = store::watched::now_ms(&pool).await.unwrap();
    let mut events = vec![];
    let mut tell = |job, kind, status, step: Option<&str>| {
        let hop = u32::from(kind != EventKind::JobAccepted);
        let event = JobEvent { step: step.map(str::to_owned), at_ms, ..sample_event(job, kind, status, hop) };
        let cursor = i64::try_from(events.len()).unwrap();
        events.push(ObservedEvent { partition: 0, cursor, trace_id: None, event });
    };
    let ends = [
        (EventKind::JobSucceeded, JobStatus::Succeeded, 1),
        (EventKind::JobFailed, JobStatus::Failed, 2),
        (EventKind::JobCancelled, JobStatus::Cancelled, 3),
    ];
    for (kind, status, jobs) in ends {
        for _ in 0..jobs {
            let job = sample_job();
            tell(job, EventKind::JobAccepted, JobStatus::Accepted, None);
            tell(job, EventKind::StepSkipped, JobStatus::Running, Some("reserve"));
            tell(job, EventKind::StepFailed, JobStatus::Running, Some("charge"));
            tell(job, EventKind::StepSucceeded, JobStatus::Running, Some("a-step-that-was"));
            tell(job, kind, status, None);
        }
    }
    let mut tx = pool.begin().await.unwrap();
    project(&mut tx, &events).await.unwrap();
    tx.commit().await.unwrap();

    let stats = stage.ingest.api.get("/v1/flows/order/stats?window=1m").await.json;
    let jobs = ["accepted", "ended", "succeeded", "failed", "cancelled"].map(|name| stats["jobs"][name].clone());
    assert_eq!(jobs, [6, 6, 1, 2, 3], "{stats:#}");
    let steps = stats["steps"].as_array().unwrap();
    let counts = |step: &Value| ["succeeded", "skipped", "failed"].map(|name| step[name].as_u64().unwrap());
    let told: Vec<_> = steps.iter().map(|step| (step["id"].as_str().unwrap(), counts(step))).collect();
    assert_eq!(told, [("reserve", [0, 6, 0]), ("charge", [0, 0, 6]), ("a-step-that-was", [6, 0, 0])]);
    let other = stage.ingest.api.get("/v1/flows/plain/stats").await.json;
    assert_eq!((&other["jobs"]["accepted"], &other["jobs"]["ended_per_s"]), (&json!(0), &json!(0.0)));
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_tells_when_the_job_will_have_ended_and_retry_after_follows_from_it() {
    let stage = Stage::with(|config| config.retry_after_max_s = 35).await;
    let (ground, api) = (&stage.ground, &stage.ingest.api);
    let job = api.order(&[], INPUT).await.job();
    let path = format!("/v1/jobs/{job}");
    let first = api.get(&path).await;
    assert_eq!((first.json.get("eta_s"), first.header("retry-after")), (None, "1"), "nothing is known");

    project_ended(ground, 20).await;
    let told = eventually(PATIENCE, "the status has an estimate", async || {
        let answer = api.get(&path).await;
        answer.json["eta_s"].is_number().then_some(answer)
    })
    .await;
    // The rest of 40 s: the test has taken some of them.
    let eta_s = told.json["eta_s"].as_f64().unwrap();
    assert!(eta_s > 5.0 && eta_s < 45.0, "{}", told.text);
    let asked_s = told.header("retry-after").parse::<f64>().unwrap();
    assert!(asked_s == 35.0 || (asked_s - eta_s).abs() <= 1.0, "{eta_s} {asked_s}");
    let unchanged = api.get_with(&path, &[("if-none-match", told.header("etag"))]).await;
    assert!(unchanged.status == 304 && unchanged.header("retry-after").parse::<f64>().unwrap() > 1.0);
    let result = api.get(&format!("{path}/result")).await;
    assert!(result.status == 404 && result.header("retry-after").parse::<f64>().unwrap() > 1.0, "{}", result.text);
    assert_eq!(api.order(&[], INPUT).await.header("retry-after"), "35", "a new one takes 40 s, cut to the bound");

    // After its first step, whose time is known, what is left is the second step.
    let accepted = accepted_event(ground, &job).await;
    ground.tell(&accepted).await;
    let at_ms = accepted.at_ms;
    let event = JobEvent {
        kind: EventKind::StepSucceeded,
        status: JobStatus::Running,
        step: Some("reserve".to_owned()),
        hop: 1,
        at_ms: at_ms.max(accepted.accepted_at_ms),
        ..accepted.clone()
    };
    ground.tell(&event).await;
    let eta_s = eventually(PATIENCE, "the step is over", async || {
        let status = api.get(&path).await.json;
        (status["progress"]["done"] == 1).then(|| status["eta_s"].as_f64())
    })
    .await;
    assert!(eta_s.is_none_or(|eta_s| eta_s < 33.0), "{eta_s:?}");
    // A job that has ended, or waits for somebody, has none.
    let parked = JobEvent { kind: EventKind::JobParked, status: JobStatus::NeedsAttention, hop: 2, ..event };
    ground.tell(&parked).await;
    eventually(PATIENCE, "the job is parked", async || {
        let answer = api.get(&path).await;
        (answer.json["status"] == "needs_attention").then(|| assert_eq!(answer.json.get("eta_s"), None))
    })
    .await;
    stage.ingest.stop().await;
}
