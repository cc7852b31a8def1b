//! The bounds of streams: how many, how much waits in them, and their end at shutdown.

use flow::event::JobEvent;
use serde_json::json;
use test_kit::{eventually, measure, metric};
use tokio::sync::{Mutex, MutexGuard};

use crate::stage::{INPUT, Ingest, PATIENCE, Stage, accepted_event};
use crate::status::project_one;
use crate::stream_client::{Message, Socket, Sse, course};

/// The metrics are this process's: tests that look at them take turns.
static TURN: Mutex<()> = Mutex::const_new(());

async fn turn() -> MutexGuard<'static, ()> {
    measure();
    TURN.lock().await
}

fn dropped(reason: &str) -> f64 {
    metric(&format!("meanwhile_streams_dropped_total{{reason=\"{reason}\"}}")).unwrap_or(0.0)
}

/// An event that is too large to wait beside another one.
fn large(accepted: &JobEvent, number: u32) -> JobEvent {
    let [_, step, ..] = &course(accepted)[..] else { panic!("a course has steps") };
    JobEvent { hop: number + 1, data: Some(json!("x".repeat(700_000))), ..step.clone() }
}

/// Tells of a job until so many streams were dropped for that reason. The orchestrator keeps up.
async fn until_dropped(stage: &Stage, accepted: &JobEvent, reason: &str, count: f64) -> Vec<String> {
    let (before, mut told) = (dropped(reason), Vec::new());
    // As much as the buffers of sockets can hold, and more: it is the bound of a test that fails.
    for number in 0..200 {
        if dropped(reason) >= before + count {
            return told;
        }
        let event = large(accepted, number);
        let place = stage.ground.tell(&event).await;
        project_one(&stage.ground, place, &event).await;
        told.push(place.1.to_string());
    }
    panic!("no stream was dropped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_keep_up_is_dropped_with_a_reason_and_resumes_without_a_gap() {
    let _turn = turn().await;
    let stage = Stage::with(|config| config.stream_bytes_max = 1).await;
    let job = stage.ingest.api.order(&[], INPUT).await.job();
    let accepted = accepted_event(&stage.ground, &job).await;
    let path = format!("/v1/jobs/{job}/events");
    let stream = Sse::open(&stage.ingest.api, &path, None).await;
    let mut socket = Socket::open(&stage.ingest, &path).await;
    let mut told = until_dropped(&stage, &accepted, "slow", 2.0).await;
    // Only now they read on.
    let close = loop {
        match socket.next().await {
            Ok(_) => {}
            Err(close) => break close,
        }
    };
    assert_eq!(close, (1008, "slow-consumer".to_owned()));
    let messages = stream.rest().await;
    let (last, before) = messages.split_last().unwrap();
    assert_eq!((last.name.as_deref(), &last.json()["reason"]), (Some("error"), &json!("slow-consumer")));
    let mut seen: Vec<String> = before.iter().filter_map(|message| message.id.clone()).collect();
    let mut again = Sse::open(&stage.ingest.api, &path, seen.last().map(String::as_str)).await;
    while seen.len() < told.len() {
        seen.push(again.event().await.unwrap().id.unwrap());
    }
    told.push(stage.ground.tell(&course(&accepted)[3]).await.1.to_string());
    seen.push(again.event().await.unwrap().id.unwrap());
    assert_eq!(seen, told);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_streams_together_are_bounded_and_the_one_with_the_most_is_dropped() {
    let _turn = turn().await;
    let stage = Stage::with(|config| (config.stream_bytes_max, config.streams_bytes_max) = (1 << 30, 8 << 20)).await;
    let job = stage.ingest.api.order(&[], INPUT).await.job();
    let accepted = accepted_event(&stage.ground, &job).await;
    let path = format!("/v1/jobs/{job}/events");
    let slow = Sse::open(&stage.ingest.api, &path, None).await;
    until_dropped(&stage, &accepted, "no-room", 1.0).await;
    let messages = slow.rest().await;
    assert_eq!(messages.last().unwrap().json()["reason"], "slow-consumer");
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_all_jobs_that_falls_behind_is_dropped_with_a_reason_and_resumes_from_kafka() {
    let _turn = turn().await;
    let stage = Stage::with(|config| config.stream_log_bytes_max = 1).await;
    let job = stage.ingest.api.order(&[], INPUT).await.job();
    let accepted = accepted_event(&stage.ground, &job).await;
    let mut slow = Sse::open(&stage.ingest.api, "/v1/events", None).await;
    let mut fast = Sse::open(&stage.ingest.api, "/v1/events", None).await;
    let mut told = Vec::new();
    // More than the buffers of sockets can hold.
    for number in 0..60 {
        told.push(stage.ground.tell(&large(&accepted, number)).await.1);
        assert!(fast.event().await.is_some(), "a client that keeps up stays");
    }
    let mut messages: Vec<Message> = Vec::new();
    while let Some(message) = slow.next().await {
        messages.push(message);
    }
    let last = messages.pop().unwrap();
    assert_eq!((last.name.as_deref(), &last.json()["reason"]), (Some("error"), &json!("slow-consumer")));
    let mut seen = messages.iter().filter(|message| message.data.is_some()).count();
    assert!(seen < told.len());
    let cursor = messages.iter().rev().find_map(|message| message.id.clone()).unwrap();
    let mut again = Sse::open(&stage.ingest.api, "/v1/events", Some(&cursor)).await;
    while seen < told.len() {
        assert!(again.event().await.unwrap().id.is_some());
        seen += 1;
    }
    stage.ground.tell(&course(&accepted)[3]).await;
    assert_eq!(again.event().await.unwrap().json()["type"], "job.succeeded");
    stage.ingest.stop().await;
}

async fn until_open(count: usize) {
    let open = || metric("meanwhile_streams").unwrap_or(0.0);
    eventually(PATIENCE, "so many streams", async || (open() as usize == count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_a_stream_is_refused_and_a_client_that_leaves_makes_room() {
    let _turn = turn().await;
    until_open(0).await;
    let stage = Stage::with(|config| config.streams_max = 1).await;
    let job = stage.ingest.api.order(&[], INPUT).await.job();
    let path = format!("/v1/jobs/{job}/events");
    let sse = [("accept", "text/event-stream")];
    let first = Sse::open(&stage.ingest.api, &path, None).await;
    for path in [&path, "/v1/events"] {
        let refused = stage.ingest.api.get_with(path, &sse).await;
        assert_eq!((refused.status, refused.problem()), (503, "too-many-streams"));
        assert_eq!(refused.header("retry-after"), "5");
    }
    drop(first);
    until_open(0).await;
    let socket = Socket::open(&stage.ingest, &path).await;
    until_open(1).await;
    drop(socket);
    until_open(0).await;
    drop(Sse::open(&stage.ingest.api, "/v1/events", None).await);
    until_open(0).await;
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_shutdown_streams_end_so_that_their_clients_go_on_elsewhere_without_a_gap() {
    let _turn = turn().await;
    let Stage { ground, ingest } = Stage::new().await;
    let other = Ingest::start(&ground, |_| {}).await;
    other.ready().await;
    let job = ingest.api.order(&[], INPUT).await.job();
    let events = course(&accepted_event(&ground, &job).await);
    let path = format!("/v1/jobs/{job}/events");
    let mut streams = [Sse::open(&ingest.api, &path, None).await, Sse::open(&ingest.api, "/v1/events", None).await];
    let mut socket = Socket::open(&ingest, &path).await;
    ground.tell(&events[0]).await;
    let mut cursors = Vec::new();
    for stream in &mut streams {
        cursors.push(stream.event().await.unwrap().id.unwrap());
    }
    let cursor = socket.next().await.unwrap()["cursor"].as_str().unwrap().to_owned();
    ingest.stop().await;
    for stream in streams {
        assert_eq!(stream.rest().await.last().unwrap().comment.as_deref(), Some("leaving"));
    }
    assert_eq!(socket.next().await, Err((1012, "leaving".to_owned())));
    ground.tell(&events[1]).await;
    for (path, cursor) in [&path, "/v1/events"].iter().zip(&cursors) {
        let mut stream = Sse::open(&other.api, path, Some(cursor)).await;
        assert_eq!(stream.event().await.unwrap().json()["step"], "reserve");
    }
    let mut socket = Socket::open(&other, &format!("{path}?after={cursor}")).await;
    assert_eq!(socket.next().await.unwrap()["step"], "reserve");
    other.stop().await;
}
