//! What workers tell of steps under way.

use std::sync::Arc;
use std::time::Duration;

use bus::Tail;
use events::decode_progress;
use events::progress::Progress;
use flow::callback::{Callbacks, Purpose, Secrets};
use flow::event::JobStatus;
use serde_json::json;
use test_kit::{Answer, Receiver, eventually};
use tokio::sync::Notify;
use workers::config::Config;
use workers::{NativeCall, Settings, Workers};

use crate::stage::{ONE_STEP, PATIENCE, Stage};

/// Longer than any test lasts.
const NEVER_MS: u64 = 24 * 60 * 60 * 1_000;

/// Reads the topic from before the first report on.
struct Heard {
    tail: Tail,
    schemas: events::Schemas,
    more: Vec<Progress>,
}

impl Heard {
    async fn of(stage: &Stage) -> Self {
        let tail = Tail::start(&stage.bus, &stage.topics.progress(), Duration::from_millis(20)).await.unwrap();
        let schemas = events::Schemas::new();
        schemas.insert_writers(&stage.writers);
        Self { tail, schemas, more: Vec::new() }
    }

    async fn next(&mut self) -> Progress {
        while self.more.is_empty() {
            let records = tokio::time::timeout(PATIENCE, self.tail.next()).await.expect("a report").unwrap();
            let read = |record: &events::Inbound| decode_progress(&self.schemas, record.value.as_deref().unwrap());
            self.more = records.iter().map(|record| read(record).unwrap()).collect();
        }
        self.more.remove(0)
    }
}

fn settings(stage: &Stage, progress_after_ms: u64) -> Settings {
    let settings = stage.settings("a");
    Settings { config: Config { progress_after_ms, ..settings.config }, ..settings }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_native_steps_reports_arrive_while_it_runs_and_a_short_attempt_is_not_told_of() {
    let stage = Stage::new(ONE_STEP).await;
    let mut heard = Heard::of(&stage).await;
    let (goes_on, waits) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let ends = Arc::clone(&waits);
    let next = Arc::clone(&goes_on);
    let work = move |call: NativeCall| {
        let (next, ends) = (Arc::clone(&next), Arc::clone(&ends));
        async move {
            call.progress.report(30, "three pages\nof ten");
            next.notified().await;
            call.progress.percent(60);
            ends.notified().await;
            Ok(json!({}))
        }
    };
    let running = stage.work_with(settings(&stage, NEVER_MS), Workers::builder().native("nothing", work).build());
    let job = stage.submit(json!({})).await;
    let first = heard.next().await;
    assert_eq!((first.kind.as_str(), first.job, first.step.as_deref()), ("percent", job, Some("one")));
    assert_eq!((first.visit, first.attempt, first.hop), (1, 1, 1));
    assert_eq!((first.percent, first.message.as_deref()), (Some(30), Some("three pages of ten")));
    goes_on.notify_one();
    let second = heard.next().await;
    assert_eq!((second.percent, second.message.as_deref()), (Some(60), Some("three pages of ten")));
    waits.notify_one();
    assert_eq!(stage.ends().await[0].status, JobStatus::Succeeded);
    running.stop().await;
    stage.tokens().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_lasts_is_told_of_and_so_is_the_next_one() {
    let flow = r#"
flow: one
steps:
  - { id: one, http: { method: POST, url: "{{ env.URL }}/" }, timeout: 60s, retry: { attempts: 2, backoff: 1ms..2ms } }
"#;
    let receiver = Receiver::start().await;
    let mut stage = Stage::new(flow).await;
    stage.env.push(("URL".to_owned(), receiver.url()));
    let mut heard = Heard::of(&stage).await;
    let first = std::sync::atomic::AtomicBool::new(true);
    receiver.answer_with(move |_| {
        let status = if first.swap(false, std::sync::atomic::Ordering::Relaxed) { 503 } else { 200 };
        Answer::json(status, &json!({})).after(Duration::from_millis(100))
    });
    let running = stage.work_with(settings(&stage, 0), Workers::builder().build());
    let job = stage.submit(json!({})).await;
    for attempt in [1, 2] {
        let told = heard.next().await;
        assert_eq!((told.kind.as_str(), told.job, told.attempt, told.percent), ("started", job, attempt, None));
    }
    assert_eq!(stage.ends().await[0].status, JobStatus::Succeeded);
    running.stop().await;
    stage.tokens().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attempt_tells_the_same_address_for_its_progress() {
    let flow = r#"
flow: one
steps:
  - id: one
    http: { method: POST, url: "{{ env.URL }}/", body: { tell: "{{ progress.url }}" } }
    retry: { attempts: 2, backoff: 1ms..2ms }
"#;
    let receiver = Receiver::start().await;
    let mut stage = Stage::new(flow).await;
    stage.env.push(("URL".to_owned(), receiver.url()));
    let asked = std::sync::atomic::AtomicBool::new(false);
    receiver.answer_with(move |_| {
        let again = asked.swap(true, std::sync::atomic::Ordering::Relaxed);
        Answer::json(if again { 200 } else { 503 }, &json!({}))
    });
    let secrets = Secrets::new(vec!["a-secret-of-thirty-two-bytes-ok!".to_owned()]).unwrap();
    let mut settings = settings(&stage, NEVER_MS);
    settings.env.callbacks = Callbacks { api_url: "http://api".to_owned(), secrets: secrets.clone() };
    let running = stage.work_with(settings, Workers::builder().build());
    let job = stage.submit(json!({})).await;
    assert_eq!(stage.ends().await[0].status, JobStatus::Succeeded);
    let requests = eventually(PATIENCE, "both attempts", async || {
        let requests = receiver.requests();
        (requests.len() == 2).then_some(requests)
    })
    .await;
    assert_eq!(requests[0].body, requests[1].body);
    let body = requests[0].json();
    let text = body["tell"].as_str().unwrap().strip_prefix("http://api/v1/progress/").unwrap();
    let permit = secrets.verify(Purpose::Progress, text).unwrap();
    assert_eq!((permit.job, permit.step.as_str(), permit.visit, permit.round), (job, "one", 1, 0));
    running.stop().await;
    stage.tokens().await;
}
