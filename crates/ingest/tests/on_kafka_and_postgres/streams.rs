//! Streams of one job's events: its past from Postgres, then what the tail sees, with one cursor for every instance.

use events::progress::{PERCENT, Progress};
use events::progress_record;
use flow::event::JobEvent;
use serde_json::{Value, json};
use test_kit::eventually;

use crate::progress::sample_progress;
use crate::stage::{INPUT, Ingest, PATIENCE, Stage, accepted_event, trace_of};
use crate::status::project_one;
use crate::stream_client::{Message, Socket, Sse, course};
use crate::wait::while_the_database_is_locked;

const KINDS: [&str; 4] = ["job.accepted", "step.succeeded", "step.succeeded", "job.succeeded"];

fn kinds(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.json()["type"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_streamed_from_its_past_to_its_end_and_the_live_part_needs_no_database() {
    let Stage { ground, ingest } = Stage::new().await;
    let job = ingest.api.order(&[], INPUT).await.job();
    let events = course(&accepted_event(&ground, &job).await);
    let path = format!("/v1/jobs/{job}/events");
    let mut stream = Sse::open(&ingest.api, &path, None).await;
    let mut seen = Vec::new();
    while_the_database_is_locked(&ground, async {
        for event in &events {
            let cursor = ground.tell(event).await.1;
            let message = stream.event().await.unwrap();
            assert_eq!(message.id, Some(cursor.to_string()));
            assert_eq!(message.json()["cursor"], cursor.to_string());
            seen.push(message);
        }
    })
    .await;
    assert_eq!(kinds(&seen), KINDS);
    assert_eq!(stream.rest().await.last().unwrap().comment.as_deref(), Some("finished"), "it ends with its job");

    // The same again, as it is told afterwards, in all forms.
    let mut again = Sse::open(&ingest.api, &path, None).await;
    for message in &seen {
        assert_eq!(again.event().await.as_ref(), Some(message));
    }
    let page = ingest.api.get(&path).await;
    let listed: Vec<Value> = seen.iter().map(Message::json).collect();
    assert_eq!(page.json["events"], json!(listed));
    let mut socket = Socket::open(&ingest, &path).await;
    for event in &listed {
        assert_eq!(socket.next().await.as_ref(), Ok(event));
    }
    assert_eq!(socket.next().await, Err((1000, "finished".to_owned())));
    // A browser that comes back after the end is told not to come again.
    let last = seen[3].id.as_deref().unwrap();
    let headers = [("accept", "text/event-stream"), ("last-event-id", last)];
    assert_eq!(ingest.api.stream(&format!("{path}?after=0"), &headers).await.status(), 204);
    assert_eq!(Socket::open(&ingest, &format!("{path}?after={last}")).await.next().await.unwrap_err().0, 1000);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_at_every_event_and_resumed_at_another_instance_a_stream_has_each_event_once() {
    let Stage { ground, ingest } = Stage::new().await;
    let job = ingest.api.order(&[], INPUT).await.job();
    let events = course(&accepted_event(&ground, &job).await);
    // The past of before the other instance's start comes from the database there.
    let mut told = Vec::new();
    for event in &events[..2] {
        let place = ground.tell(event).await;
        project_one(&ground, place, event).await;
        told.push(place.1.to_string());
    }
    let other = Ingest::start(&ground, |config| config.recent_jobs_max = 1).await;
    other.ready().await;
    let crowding = other.api.order(&[], INPUT).await.job();
    ground.tell(&accepted_event(&ground, &crowding).await).await;
    let seen_there = async || other.api.get(&format!("/v1/jobs/{crowding}/events")).await.json["next"] != "-1";
    eventually(PATIENCE, "the job is forgotten there", async || seen_there().await.then_some(())).await;

    let path = format!("/v1/jobs/{job}/events");
    let mut seen: Vec<Message> = Vec::new();
    for number in 0..events.len() {
        let instance = [&other, &ingest][number % 2];
        let last = seen.last().and_then(|message| message.id.clone());
        let mut stream = Sse::open(&instance.api, &path, last.as_deref()).await;
        if number >= told.len() {
            // The connection is there before the event.
            told.push(ground.tell(&events[number]).await.1.to_string());
        }
        seen.push(stream.event().await.unwrap());
    }
    let ids: Vec<String> = seen.iter().map(|message| message.id.clone().unwrap()).collect();
    assert_eq!(ids, told);
    assert_eq!(kinds(&seen), KINDS);
    other.stop().await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_past_is_read_by_pages_and_no_more_of_it_than_a_page() {
    let Stage { ground, ingest } = Stage::with(|config| config.recent_jobs_max = 1).await;
    let job = ingest.api.order(&[], INPUT).await.job();
    let step = course(&accepted_event(&ground, &job).await).remove(1);
    let mut told = Vec::new();
    for hop in 1..=12 {
        let event = JobEvent { hop, data: Some(json!("x".repeat(300_000))), ..step.clone() };
        let place = ground.tell(&event).await;
        project_one(&ground, place, &event).await;
        told.push(place.1.to_string());
    }
    let crowding = ingest.api.order(&[], INPUT).await.job();
    ground.tell(&accepted_event(&ground, &crowding).await).await;
    let seen = async || ingest.api.get(&format!("/v1/jobs/{crowding}/events")).await.json["next"] != "-1";
    eventually(PATIENCE, "the job is forgotten here", async || seen().await.then_some(())).await;

    let path = format!("/v1/jobs/{job}/events");
    let (mut next, mut listed) = (String::new(), Vec::new());
    while listed.len() < told.len() {
        let page = ingest.api.get(&format!("{path}?after={next}")).await;
        let events = page.json["events"].as_array().unwrap();
        assert!((1..=4).contains(&events.len()), "{} events, {} bytes", events.len(), page.text.len());
        listed.extend(events.iter().map(|event| event["cursor"].as_str().unwrap().to_owned()));
        page.json["next"].as_str().unwrap().clone_into(&mut next);
        assert_eq!(listed.last(), Some(&next));
    }
    assert_eq!(listed, told);
    let mut stream = Sse::open(&ingest.api, &path, None).await;
    for cursor in &told {
        assert_eq!(stream.event().await.unwrap().id.as_ref(), Some(cursor));
    }
    // Neither what lies before a page is read, nor what lies behind it.
    ground.sql("update orchestrator.jobs set history = 'unreadable'");
    let far = format!("cursor <= {} or cursor = {}", told[5], told[11]);
    ground.sql(&format!("update orchestrator.job_events set lines = 'unreadable' where {far}"));
    let page = ingest.api.get(&format!("{path}?after={}", told[5])).await;
    assert_eq!((page.status, &page.json["events"][0]["cursor"]), (200, &json!(told[6])));
    let mut socket = Socket::open(&ingest, &format!("{path}?after={}", told[5])).await;
    let mut stream = Sse::open(&ingest.api, &path, Some(&told[5])).await;
    for cursor in &told[6..11] {
        assert_eq!(stream.event().await.unwrap().id.as_ref(), Some(cursor));
        assert_eq!(socket.next().await.unwrap()["cursor"], *cursor);
    }
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_this_instance_has_not_reached_is_waited_for() {
    let Stage { ground, ingest } = Stage::with(|config| config.wait_max_s = 1_000).await;
    let job = ingest.api.order(&[], INPUT).await.job();
    let events = course(&accepted_event(&ground, &job).await);
    let path = format!("/v1/jobs/{job}/events");
    let first = ground.tell(&events[0]).await.1;
    let mut behind = Sse::open(&ingest.api, &path, None).await;
    assert_eq!(behind.event().await.unwrap().id, Some(first.to_string()));
    // Another instance has seen the next event already.
    let ahead = (first + 1).to_string();
    let mut stream = Sse::open(&ingest.api, &path, Some(&ahead)).await;
    let mut socket = Socket::open(&ingest, &format!("{path}?after={ahead}")).await;
    assert_eq!(ingest.api.get(&format!("{path}?after={ahead}")).await.problem(), "not-ready", "none older is given");
    let (api, asked) = (ingest.api.clone(), format!("{path}?after={ahead}&wait=1000"));
    let page = tokio::spawn(async move { api.get(&asked).await });
    assert_eq!(ground.tell(&events[1]).await.1, first + 1);
    assert_eq!(behind.event().await.unwrap().id.as_deref(), Some(&*ahead));
    let next = ground.tell(&events[2]).await.1.to_string();
    assert_eq!(stream.event().await.unwrap().id.as_ref(), Some(&next));
    assert_eq!(socket.next().await.unwrap()["cursor"], next);
    let page = page.await.unwrap();
    assert_eq!((&page.json["next"], page.json["events"].as_array().unwrap().len()), (&json!(next), 1));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_waits_for_the_next_event() {
    let Stage { ground, ingest } = Stage::with(|config| config.wait_max_s = 1_000).await;
    let job = ingest.api.order(&[], INPUT).await.job();
    let path = format!("/v1/jobs/{job}/events");
    let mut next = String::new();
    let (mut seen, mut told) = (Vec::new(), Vec::new());
    for event in course(&accepted_event(&ground, &job).await) {
        let (api, asked) = (ingest.api.clone(), format!("{path}?after={next}"));
        let page = tokio::spawn(async move { api.get_with(&asked, &[("prefer", "wait=1000")]).await });
        tokio::task::yield_now().await;
        told.push(ground.tell(&event).await.1.to_string());
        let page = page.await.unwrap();
        assert_eq!(page.header("preference-applied"), "wait=1000");
        assert_eq!(page.header("vary"), "Prefer");
        seen.extend(page.json["events"].as_array().unwrap().iter().map(|event| event["cursor"].clone()));
        page.json["next"].as_str().unwrap().clone_into(&mut next);
    }
    assert_eq!(json!(seen), json!(told));
    let over = ingest.api.get(&format!("{path}?after={next}&wait=1000")).await;
    assert_eq!((over.status, &over.json), (200, &json!({ "events": [], "next": next })), "nothing more comes");
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_streamed_beside_the_events_and_moves_no_cursor() {
    let Stage { ground, ingest } = Stage::with(|config| config.stream_heartbeat_s = 1).await;
    let job = ingest.api.order(&[], INPUT).await.job();
    let events = course(&accepted_event(&ground, &job).await);
    let path = format!("/v1/jobs/{job}/events");
    let (mut stream, mut socket) = (Sse::open(&ingest.api, &path, None).await, Socket::open(&ingest, &path).await);
    ground.tell(&events[0]).await;
    stream.event().await.unwrap();
    socket.next().await.unwrap();
    let message = Some("Three pages of ten".to_owned());
    let progress = Progress { percent: Some(30), message, ..sample_progress(job.parse().unwrap(), PERCENT) };
    let trace = trace_of(&ground.outbox(&ground.topics.events())[0]);
    let report = progress_record(&ground.topics, &ground.writers, &progress, &trace).unwrap();
    ground.send(&report).await;
    let expected = json!({
        "type": "progress",
        "at": "2025-07-20T08:26:40.123Z",
        "step": "reserve",
        "visit": 1,
        "percent": 30,
        "message": "Three pages of ten",
    });
    let mut heartbeats = 0;
    let message = loop {
        let message = stream.next().await.unwrap();
        if message.name.is_some() {
            break message;
        }
        heartbeats += 1;
    };
    assert_eq!((message.name.as_deref(), &message.id, message.json()), (Some("progress"), &None, expected.clone()));
    assert_eq!(socket.next().await, Ok(expected));
    // A sign of life comes by itself.
    while heartbeats == 0 {
        heartbeats +=
            usize::from(stream.next().await.unwrap() == Message { comment: Some(String::new()), ..Message::default() });
    }
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_stream_can_be_made_of_is_refused() {
    let stage = Stage::new().await;
    let api = &stage.ingest.api;
    let job = api.order(&[], INPUT).await.job();
    let nobodys = "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d";
    let sse = ("accept", "text/html, Text/Event-Stream;q=0.9");
    for (path, headers, status, problem) in [
        (format!("/v1/jobs/{nobodys}/events"), &[sse][..], 404, "unknown-job"),
        ("/v1/jobs/x/events".to_owned(), &[sse], 404, "unknown-job"),
        (format!("/v1/jobs/{job}/events?after=x"), &[sse], 400, "bad-request"),
        (format!("/v1/jobs/{job}/events"), &[sse, ("last-event-id", "x")], 400, "bad-request"),
        (format!("/v1/jobs/{job}/events?wait=x"), &[], 400, "bad-request"),
        (format!("/v1/jobs/{job}/events"), &[("upgrade", "websocket")], 400, "bad-request"),
        ("/v1/events?after=4711".to_owned(), &[sse], 400, "bad-request"),
        ("/v1/events?status=done".to_owned(), &[sse], 400, "bad-request"),
    ] {
        let answer = api.get_with(&path, headers).await;
        assert_eq!((answer.status, answer.problem()), (status, problem), "{path}: {}", answer.text);
    }
    stage.ingest.stop().await;
}
