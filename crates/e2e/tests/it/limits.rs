//! Limits of a downstream, shared by all workers; and a step that falls back where its downstream is gone.

use std::future::IntoFuture;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use parking_lot::Mutex;
use serde_json::{Value, json};
use test_kit::{Role, TestSystem, eventually};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::send;
use crate::load::pass;
use crate::stage::PATIENCE;
use crate::turn::nearly_alone;

const JOBS: usize = 120;
const RATE_PER_S: usize = 30;
const IN_FLIGHT: usize = 6;
/// The time of a call.
const CALL: Duration = Duration::from_millis(50);

const FLOWS: &str = r#"
flow: limited
steps:
  - id: call
    http: { method: POST, url: "{{ env.LIMITED_URL }}/call" }
    limits: { rate: 30/s, in_flight: 6 }
---
flow: hasty
steps:
  - id: call
    http: { method: POST, url: "{{ env.LIMITED_URL }}/call" }
    limits: { rate: 900/s, in_flight: 90 }
---
flow: quoted
steps:
  - id: quote
    http: { method: POST, url: "{{ env.GONE_URL }}/quote" }
    retry: { attempts: 2, backoff: 1ms..1ms }
    fallback: { value: { price: "{{ input.price }}" } }
result: { price: "{{ steps.quote.output.price }}" }
"#;

#[derive(Debug, Default)]
struct Seen {
    now: usize,
    most: usize,
    began: Vec<Instant>,
}

type Book = Arc<Mutex<Seen>>;

async fn call(State(book): State<Book>) -> Json<Value> {
    {
        let mut seen = book.lock();
        seen.now += 1;
        seen.most = seen.most.max(seen.now);
        seen.began.push(Instant::now());
    }
    pass(CALL).await;
    book.lock().now -= 1;
    Json(json!({}))
}

/// A service that looks at its calls; it ends with the guard.
async fn serve() -> (Book, String, DropGuard) {
    let (book, end) = (Book::default(), CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/call", post(call)).with_state(Arc::clone(&book));
    let until = end.clone();
    tokio::spawn(async move { until.run_until_cancelled(axum::serve(listener, router).into_future()).await });
    (book, url, end.drop_guard())
}

fn write_flows(folder: &Path) {
    for (number, flow) in FLOWS.split("---").enumerate() {
        std::fs::write(folder.join(format!("{number}.yaml")), flow).unwrap();
    }
}

/// Nobody listens there.
const GONE: &str = "http://127.0.0.1:1";

async fn start(workers: u32, folder: &Path, url: &str) -> TestSystem {
    write_flows(folder);
    let builder = TestSystem::builder().role(Role::Workers, workers).flows(folder);
    builder.variable("LIMITED_URL", url).variable("GONE_URL", GONE).start().await.unwrap()
}

async fn submit(system: &mut TestSystem, flow: &str, input: &Value) -> JobId {
    system.submit(flow, &uuid::Uuid::now_v7().to_string(), input).await.unwrap()
}

/// Sets a breaker.
async fn order(system: &TestSystem, downstream: &str, state: &str) {
    let url = format!("{}/v1/breakers/{downstream}", system.api());
    let seen = send(reqwest::Client::new().put(url).json(&json!({ "state": state, "reason": "a test" }))).await;
    assert_eq!(seen.status, 202, "{seen:?}");
}

/// True once every worker leaves the downstream alone.
async fn heeds(system: &mut TestSystem, downstream: &str) -> bool {
    for worker in system.roles().iter().filter(|process| process.role() == Role::Workers) {
        if !worker.metric("meanwhile_breaker_open", downstream).await.is_ok_and(|open| open > 0.0) {
            return false;
        }
    }
    true
}

/// The jobs that wait for a breaker.
async fn waiting(system: &TestSystem, downstream: &str) -> usize {
    let seen = send(reqwest::Client::new().get(format!("{}/v1/breakers", system.api()))).await;
    let listed = seen.body["breakers"].as_array().unwrap();
    let breaker = listed.iter().find(|breaker| breaker["downstream"] == downstream);
    breaker.and_then(|breaker| breaker["waiting"].as_u64()).unwrap_or_default() as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_together_keep_the_rate_and_the_number_of_calls_under_way() {
    let _turn = nearly_alone().await;
    let (book, url, _open) = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let mut system = start(2, folder.path(), &url).await;
    let mut jobs = Vec::new();
    // All of them want to call at once: they come together behind an open breaker.
    let downstream = url.trim_start_matches("http://");
    order(&system, downstream, "open").await;
    eventually(PATIENCE, "both workers heed it", async || heeds(&mut system, downstream).await.then_some(())).await;
    // The limits of one flow hold for all that call its downstream.
    for flow in ["limited", "hasty", "hasty"].iter().cycle().take(JOBS) {
        jobs.push(submit(&mut system, flow, &json!({})).await);
    }
    eventually(PATIENCE, "all jobs wait", async || (waiting(&system, downstream).await == JOBS).then_some(())).await;
    order(&system, downstream, "closed").await;
    let ends = system.wait_until_ended(jobs, PATIENCE).await.unwrap();
    assert!(ends.values().all(|end| end.status == JobStatus::Succeeded), "{ends:?}");
    let (most, began) = {
        let seen = book.lock();
        (seen.most, seen.began.clone())
    };
    assert!(most <= IN_FLIGHT, "{most} calls at once");
    let window = Duration::from_secs(2);
    let within = |first: &Instant| began.iter().filter(|at| (*first..*first + window).contains(*at)).count();
    let busiest = began.iter().map(within).max().unwrap();
    eprintln!("{} calls in {:?}, at most {busiest} in {window:?}, {most} at once", began.len(), began[0].elapsed());
    // What a busy machine held back comes at once.
    assert!(busiest <= 2 * RATE_PER_S + RATE_PER_S / 2, "{busiest} calls in {window:?}");
    let left = system.finish(PATIENCE).await.unwrap();
    assert!(left.events.iter().all(|event| event.kind != EventKind::StepRetrying), "no attempt is lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_on_by_its_fallback_where_its_downstream_is_gone() {
    let _turn = nearly_alone().await;
    let folder = tempfile::tempdir().unwrap();
    // Another one than that which is gone: its limits are not those of this one.
    let mut system = start(1, folder.path(), "http://127.0.0.1:2").await;
    let mut jobs = Vec::new();
    // More than open the breaker.
    for price in 0..60 {
        jobs.push((price, submit(&mut system, "quoted", &json!({ "price": price })).await));
    }
    let ends = system.wait_until_ended(jobs.iter().map(|(_, job)| *job), PATIENCE).await.unwrap();
    for (price, job) in jobs {
        let end = &ends[&job];
        assert_eq!((end.status, end.data.clone()), (JobStatus::Succeeded, Some(json!({ "price": price }))));
    }
    let left = system.finish(PATIENCE).await.unwrap();
    assert!(left.events.iter().all(|event| event.kind != EventKind::StepWaiting), "none waits");
}
