//! Streams of the events of all jobs of a tenant, with a cursor that every instance understands.

use flow::event::JobEvent;
use serde_json::{Value, json};
use test_kit::Ground;

use crate::stage::{INPUT, Ingest, Stage, accepted_event};
use crate::stream_client::{Socket, Sse, course};

/// The events of several jobs, as they mix: each job's in order.
async fn mixed(ground: &Ground, ingest: &Ingest, jobs: usize) -> Vec<JobEvent> {
    let mut courses = Vec::new();
    for number in 0..jobs {
        let submitted = match number % 2 {
            0 => ingest.api.order(&[], INPUT).await,
            _ => ingest.api.post("/v1/flows/plain/jobs", &[], "{}").await,
        };
        courses.push(course(&accepted_event(ground, &submitted.job()).await));
    }
    (0..4).flat_map(|at| courses.iter().map(move |course| course[at].clone())).collect()
}

fn name(job: &str, kind: &str) -> String {
    format!("{job} {kind}")
}

fn names(events: &[JobEvent]) -> Vec<String> {
    events.iter().map(|event| name(&event.job.to_string(), event.kind.as_str())).collect()
}

fn name_of(event: &Value) -> String {
    name(event["job"].as_str().unwrap(), event["type"].as_str().unwrap())
}

/// Of each job the same events, in the same order.
#[track_caller]
fn assert_each_once(mut seen: Vec<String>, events: &[JobEvent]) {
    let mut expected = names(events);
    // The order holds within a job; a stable sort by job keeps it.
    seen.sort_by(|one, other| one[..36].cmp(&other[..36]));
    expected.sort_by(|one, other| one[..36].cmp(&other[..36]));
    assert_eq!(seen, expected);
}

pub(crate) async fn now(ingest: &Ingest) -> String {
    let page = ingest.api.get("/v1/events").await;
    assert_eq!(page.json["events"], json!([]), "without a cursor it begins now");
    page.json["next"].as_str().unwrap().to_owned()
}

/// Reads one event at a time, each time at another instance, with the cursor of the one before.
async fn cut_at_every_event(instances: [&Ingest; 2], begin: &str, count: usize) -> Vec<String> {
    let (mut cursor, mut seen) = (begin.to_owned(), Vec::new());
    for number in 0..count {
        let mut stream = Sse::open(&instances[number % 2].api, "/v1/events", Some(&cursor)).await;
        let message = stream.event().await.unwrap();
        seen.push(name_of(&message.json()));
        assert_eq!(message.json()["cursor"].as_str(), message.id.as_deref());
        cursor = message.id.unwrap();
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_all_jobs_that_is_cut_at_every_event_has_each_once_from_whatever_instance() {
    let Stage { ground, ingest } = Stage::new().await;
    // It keeps next to nothing: what it is asked for is on Kafka only.
    let forgetful = Ingest::start(&ground, |config| config.stream_log_bytes_max = 1).await;
    forgetful.ready().await;
    let begin = now(&ingest).await;
    let events = mixed(&ground, &ingest, 5).await;
    let mut live = Sse::open(&ingest.api, "/v1/events", None).await;
    let mut socket = Socket::open(&ingest, "/v1/events").await;
    let (mut streamed, mut messages) = (Vec::new(), Vec::new());
    for event in &events {
        ground.tell(event).await;
        streamed.push(name_of(&live.event().await.unwrap().json()));
        messages.push(name_of(&socket.next().await.unwrap()));
    }
    assert_eq!(streamed, names(&events), "one at a time they come in the order in which they happen");
    assert_eq!(messages, streamed);
    let seen = cut_at_every_event([&forgetful, &ingest], &begin, events.len()).await;
    assert_each_once(seen, &events);
    // One that was started later goes on from the same cursor.
    let later = Ingest::start(&ground, |_| {}).await;
    later.ready().await;
    let seen = cut_at_every_event([&later, &forgetful], &begin, events.len()).await;
    assert_each_once(seen, &events);
    for ingest in [ingest, forgetful, later] {
        ingest.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_all_jobs_are_chosen_by_flow_and_status_and_come_in_pages_too() {
    let Stage { ground, ingest } = Stage::with(|config| config.wait_max_s = 1_000).await;
    let begin = now(&ingest).await;
    let (api, asked) = (ingest.api.clone(), format!("/v1/events?after={begin}&wait=1000&status=succeeded,failed"));
    let waiting = tokio::spawn(async move { api.get(&asked).await });
    let events = mixed(&ground, &ingest, 2).await;
    for event in &events {
        ground.tell(event).await;
    }
    let ended: Vec<String> = names(&events).into_iter().filter(|name| name.ends_with("job.succeeded")).collect();
    let page = waiting.await.unwrap();
    assert_eq!(page.status, 200, "{}", page.text);
    let first = name_of(&page.json["events"][0]);
    assert!(ended.contains(&first), "{first}: none other is chosen");
    let ended_stream = format!("/v1/events?status=succeeded&after={begin}");
    let mut stream = Sse::open(&ingest.api, &ended_stream, None).await;
    let mut seen = [stream.event().await.unwrap(), stream.event().await.unwrap()].map(|it| name_of(&it.json()));
    seen.sort();
    let mut expected = ended.clone();
    expected.sort();
    assert_eq!(seen[..], expected);

    let path = format!("/v1/events?after={begin}&flow=plain&wait=1000");
    let page = ingest.api.get(&path).await;
    let plain: Vec<JobEvent> = events.iter().filter(|event| event.flow == "plain").cloned().collect();
    let seen: Vec<String> = page.json["events"].as_array().unwrap().iter().map(name_of).collect();
    assert_eq!(seen, names(&plain));
    assert_eq!(page.json["events"][0]["flow"], "plain");
    // Another tenant's cursor is none.
    let other = Ingest::start(&ground, |config| config.default_tenant = "other".to_owned()).await;
    other.ready().await;
    assert_eq!(other.api.get(&format!("/v1/events?after={begin}")).await.problem(), "bad-request");
    let mut nothing = Sse::open(&other.api, "/v1/events", None).await;
    let own = other.api.order(&[], INPUT).await.job();
    ground.tell(&events[0]).await;
    ground.tell(&accepted_event(&ground, &own).await).await;
    assert_eq!(nothing.event().await.unwrap().json()["job"], own, "nor are another tenant's events seen");
    other.stop().await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_all_jobs_moves_its_cursor_on_while_nothing_is_chosen() {
    let Stage { ground, ingest } = Stage::with(|config| config.stream_heartbeat_s = 1).await;
    let begin = now(&ingest).await;
    let mut stream = Sse::open(&ingest.api, "/v1/events?flow=none", Some(&begin)).await;
    ground.tell(&mixed(&ground, &ingest, 1).await[0]).await;
    let moved = loop {
        let message = stream.next().await.unwrap();
        assert_eq!(message.data, None);
        if let Some(id) = message.id {
            break id;
        }
    };
    assert_eq!(now(&ingest).await, moved);
    ingest.stop().await;
}
