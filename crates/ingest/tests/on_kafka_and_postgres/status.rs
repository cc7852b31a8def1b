//! The way back: acceptance, projection and event tail as one answer that never goes back in time.

use std::sync::Arc;

use bus::Producer;
use events::event_record;
use flow::decide::code;
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::id::JobId;
use serde_json::{Value, json};
use store::Role;
use store::jobs::{ObservedEvent, project};
use test_kit::{Ground, TEST_TRACE, eventually};

use crate::stage::{Answer, INPUT, Ingest, PATIENCE, PREFIX, Stage, accepted_event, ground};

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
    assert_eq!(answer.json["links"]["self"], format!("{PREFIX}{address}"));

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
    // Another instance told more already.
    let newer = format!("\"{}\"", second + 1);
    let behind = api.get_with(&address, &[("if-none-match", &newer)]).await;
    assert_eq!((behind.status, behind.problem(), behind.header("retry-after")), (503, "not-ready", "1"));
    let behind = api.get(&format!("{address}/events?after={}", second + 1)).await;
    assert_eq!((behind.status, behind.problem(), behind.header("retry-after")), (503, "not-ready", "1"));
    let events = api.get(&format!("{address}/events")).await;
    let cursors: Vec<&Value> = events.json["events"].as_array().unwrap().iter().map(|event| &event["cursor"]).collect();
    assert_eq!(cursors, [&json!(first.to_string()), &json!(second.to_string())]);
    assert_eq!(events.json["next"], second.to_string());
    assert_eq!(events.header("cache-control"), "no-store");
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
    assert_eq!(answer.header("cache-control"), "no-store");
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

/// Writes so many events of one other job into that partition.
async fn crowd(ground: &Ground, partition: i32, accepted: &JobEvent, events: u32) {
    let of = |job: u128, hop: u32| {
        let mut event = after(accepted, EventKind::StepRetrying, JobStatus::Running, hop);
        event.facts.job = JobId::new(uuid::Uuid::from_u128(job));
        event_record(&ground.topics, &ground.writers, &event, &TEST_TRACE).unwrap()
    };
    let mut job = 1;
    while ground.send(&of(job, 0)).await.0 != partition {
        job += 1;
    }
    let producer = Arc::new(Producer::new(&ground.bus).unwrap());
    let mut sending = tokio::task::JoinSet::new();
    for hop in 1..events {
        let (producer, record) = (Arc::clone(&producer), of(job, hop));
        sending.spawn(async move { producer.send(&record).await.map(drop) });
    }
    for sent in sending.join_all().await {
        sent.unwrap();
    }
}

/// Does the rest of the orchestrator's work: all below this is projected.
fn move_projection(ground: &Ground, (partition, next): (i32, i64)) {
    let topic = ground.topics.events();
    ground.sql(&format!(
        "insert into orchestrator.offsets (topic, partition, next_offset) values ('{topic}', {partition}, {next})
         on conflict (topic, partition) do update set next_offset = excluded.next_offset"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_tells_nothing_while_events_are_missing_between_the_projection_and_the_tail() {
    let stage = Stage::new().await;
    let [job, ended] = [stage.ingest.api.order(&[], INPUT).await.job(), stage.ingest.api.order(&[], INPUT).await.job()];
    let Stage { ground, ingest } = stage;
    let accepted = accepted_event(&ground, &job).await;
    let first = ground.tell(&accepted).await;
    let running = after(&accepted, EventKind::StepSucceeded, JobStatus::Running, 1);
    let told = ground.tell(&running).await;
    let end = accepted_event(&ground, &ended).await;
    let end = after(&end, EventKind::JobSucceeded, JobStatus::Succeeded, 1);
    project_one(&ground, ground.tell(&end).await, &end).await;
    ingest.stop().await;
    // Of the job, only its acceptance is projected.
    project_one(&ground, first, &accepted).await;
    move_projection(&ground, (first.0, first.1 + 1));
    let (address, ended) = (format!("/v1/jobs/{job}"), format!("/v1/jobs/{ended}"));

    // The tail begins where the projection is, if that is not too far.
    crowd(&ground, told.0, &accepted, 3_000).await;
    let ingest = Ingest::start(&ground, |_| {}).await;
    ingest.ready().await;
    let answer = ingest.api.get(&address).await;
    assert_eq!((&answer.json["status"], cursor(&answer)), (&json!("running"), told.1), "{}", answer.text);
    ingest.stop().await;

    crowd(&ground, told.0, &accepted, 18_000).await;
    let ingest = Ingest::start(&ground, |_| {}).await;
    ingest.ready().await;
    for address in [address.clone(), format!("{address}/events"), format!("{address}/result")] {
        let answer = ingest.api.get(&address).await;
        assert_eq!(
            (answer.status, answer.problem(), answer.header("retry-after")),
            (503, "not-ready", "1"),
            "{address}"
        );
    }
    assert_eq!(ingest.api.get(&ended).await.json["status"], "succeeded", "nothing follows that");
    project_one(&ground, told, &running).await;
    move_projection(&ground, (told.0, told.1 + 20_000));
    let answer = ingest.api.get(&address).await;
    assert_eq!((&answer.json["status"], cursor(&answer)), (&json!("running"), told.1), "{}", answer.text);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_hang_do_not_keep_a_request_from_being_accepted() {
    let stage = Stage::with(|config| config.connections_max = 3).await;
    // Holds every read of a job until it is ended.
    let locked = "begin; lock table orchestrator.jobs in access exclusive mode; select pg_sleep(120)";
    let (lock, url) = (locked.to_owned(), stage.ground.database_url.clone());
    let holding = tokio::task::spawn_blocking(move || test_kit::psql(&url, &lock));
    let waiting = |what: &str| {
        let sql = format!("select count(*) from pg_stat_activity where datname = current_database() and {what}");
        stage.ground.sql(&sql).parse::<usize>().unwrap()
    };
    eventually(PATIENCE, "the lock", async || (waiting("wait_event = 'PgSleep'") == 1).then_some(())).await;
    let mut reads = tokio::task::JoinSet::new();
    for number in 0..8 {
        let api = stage.ingest.api.clone();
        let job = format!("/v1/jobs/0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8{number}");
        reads.spawn(async move { api.get(&job).await.status });
    }
    eventually(PATIENCE, "a read that hangs", async || (waiting("wait_event_type = 'Lock'") > 0).then_some(())).await;
    stage.ingest.api.order(&[], INPUT).await.job();
    stage.ground.sql("select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'");
    assert!(holding.await.unwrap().is_err());
    assert!(reads.join_all().await.iter().all(|status| [404, 503].contains(status)));
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_is_served_with_the_routes_of_the_active_flows() {
    let stage = Stage::new().await;
    let answer = stage.ingest.api.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{}", answer.text);
    assert_eq!(answer.json["openapi"], "3.1.0");
    assert_eq!(answer.json["servers"], json!([{ "url": PREFIX }]));
    let input = &answer.json["paths"]["/orders"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    let input = input["$ref"].as_str().and_then(|target| answer.json.pointer(target.trim_start_matches('#'))).unwrap();
    assert_eq!(input["required"], json!(["customer_id", "qty"]));
    assert!(answer.json["paths"].get("/v1/flows/plain/jobs").is_some(), "{}", answer.text);
    stage.ingest.stop().await;
}
