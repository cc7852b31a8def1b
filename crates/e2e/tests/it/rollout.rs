//! A team moves an endpoint under traffic: 0 % -> 25 % -> 100 % -> back -> 100 %. A client that knows only the old
//! service's answers goes through all of it, on two instances, and sees nothing that it does not understand.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use flow::event::JobStatus;
use flow::id::JobId;
use parking_lot::Mutex;
use serde_json::{Value, json};
use test_kit::{Role, TestSystem, eventually};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::send;
use crate::load::pass;
use crate::stage::PATIENCE;
use crate::turn::nearly_alone;

/// The old service's time for a report, and the time that its clients have always given it.
const SLOW: Duration = Duration::from_millis(300);
const CLIENTS_TIMEOUT: Duration = Duration::from_secs(60);
const CLIENTS: usize = 6;
/// Answers that each stage of the rollout must see.
const ANSWERS: usize = 40;

const MEDIA_TYPE: &str = "application/json; charset=utf-8";
const FLOW: &str = r#"
flow: report
route:
  at: POST /reports
  upstream: "{{ env.LEGACY_URL }}/reports"
  hold: 60s
input: { type: object, required: [customer] }
key: "{{ input.customer }}"
steps:
  - id: make
    http: { method: POST, url: "{{ env.LEGACY_URL }}/reports", body: "{{ input }}" }
"#;

/// The reports that the old service was asked for, and those of them that came from a job.
#[derive(Debug, Default)]
struct Books {
    asked: AtomicUsize,
    by_jobs: AtomicUsize,
}

async fn report(
    State(books): State<Arc<Books>>,
    headers: axum::http::HeaderMap,
    Json(body): Json<Value>,
) -> ([(&'static str, &'static str); 1], String) {
    books.asked.fetch_add(1, Ordering::Relaxed);
    // A proxied request names its way; a step is a call of its own.
    if !headers.contains_key("via") {
        books.by_jobs.fetch_add(1, Ordering::Relaxed);
    }
    pass(SLOW).await;
    ([("content-type", MEDIA_TYPE)], written(&body))
}

/// The old service's answer, byte for byte: its white space and its number are its own.
fn written(asked: &Value) -> String {
    format!("{{ \"customer\": {},  \"number\": {}, \"pages\": 3.50 }}\n", asked["customer"], asked["number"])
}

async fn old_service() -> (Arc<Books>, String, DropGuard) {
    let (books, end) = (Arc::<Books>::default(), CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/reports", post(report)).with_state(Arc::clone(&books));
    let until = end.clone();
    tokio::spawn(async move { until.run_until_cancelled(axum::serve(listener, router).into_future()).await });
    (books, url, end.drop_guard())
}

/// The traffic, and what it has met.
#[derive(Debug, Default)]
struct Traffic {
    is_over: AtomicBool,
    answers: AtomicUsize,
    jobs: Mutex<Vec<JobId>>,
    strange: Mutex<Vec<String>>,
}

impl Traffic {
    /// Returns once so many more answers have come.
    async fn goes_on(&self) {
        let from = self.answers.load(Ordering::Relaxed);
        let more = || self.answers.load(Ordering::Relaxed) - from;
        eventually(PATIENCE, "the traffic goes on", async || (more() >= ANSWERS).then_some(())).await;
        let strange = self.strange.lock();
        assert!(strange.is_empty(), "{strange:?}");
    }
}

/// A client that was written for the old service alone: no `Prefer`, no keys, and only 200 is an answer.
async fn client(number: usize, url: String, traffic: Arc<Traffic>) {
    let client = reqwest::Client::builder().no_proxy().timeout(CLIENTS_TIMEOUT).build().unwrap();
    for round in 0.. {
        if traffic.is_over.load(Ordering::Relaxed) {
            return;
        }
        // Many customers, so that a percentage takes some in and leaves some out.
        let body = json!({ "customer": format!("c-{number}-{}", round % 40), "number": round });
        let answer = client.post(format!("{url}/reports")).json(&body).send().await;
        let told = match answer {
            Ok(answer) if answer.status() == 200 => {
                let location = answer.headers().get("content-location").map(|it| it.to_str().unwrap().to_owned());
                let job: Option<JobId> =
                    location.and_then(|address| address.split('/').nth(3).unwrap_or_default().parse().ok());
                traffic.jobs.lock().extend(job);
                let media_type = answer.headers().get("content-type").map(|it| it.to_str().unwrap().to_owned());
                let (got, wanted) = (answer.text().await, written(&body));
                match got {
                    Ok(got) if got == wanted && media_type.as_deref() == Some(MEDIA_TYPE) => None,
                    got => Some(format!("{got:?} ({media_type:?}), not {wanted}")),
                }
            }
            Ok(answer) => Some(format!("{}: {:?}", answer.status(), answer.text().await)),
            Err(error) => Some(format!("{error:?}")),
        };
        traffic.strange.lock().extend(told);
        traffic.answers.fetch_add(1, Ordering::Relaxed);
    }
}

async fn set(system: &TestSystem, version: i64, percent: u32) {
    let body = json!({ "flags": { "durable": { "percent": percent } }, "reason": "the rollout" });
    let request = reqwest::Client::new().put(format!("{}/v1/flags/report", system.api()));
    let seen = send(request.header("if-match", format!("\"{version}\"")).json(&body)).await;
    assert_eq!((seen.status, &seen.body["version"]), (200, &json!(version + 1)), "{seen:?}");
}

/// Waits until all instances hold the present flags: the executions of `ANSWERS` requests in a row are as wanted.
async fn holds(traffic: &Traffic, books: &Books, is_wanted: impl Fn(usize) -> bool) {
    let settled = async || {
        let (asked, jobs) = (books.asked.load(Ordering::Relaxed), books.by_jobs.load(Ordering::Relaxed));
        traffic.goes_on().await;
        let by_jobs = books.by_jobs.load(Ordering::Relaxed) - jobs;
        let asked = books.asked.load(Ordering::Relaxed) - asked;
        is_wanted(by_jobs * 100 / asked.max(1)).then_some(())
    };
    eventually(PATIENCE, "the flags hold", settled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_knows_only_200_goes_through_a_rollout_and_back_and_sees_nothing_strange() {
    let _turn = nearly_alone().await;
    let (books, url, _open) = old_service().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("report.yaml"), FLOW).unwrap();
    let builder = TestSystem::builder().role(Role::Ingest, 2).flows(folder.path()).variable("LEGACY_URL", &url);
    let mut system = builder.start().await.unwrap();
    let ingests: Vec<String> =
        system.roles().iter().filter(|process| process.role() == Role::Ingest).map(|process| process.url()).collect();
    assert_eq!(ingests.len(), 2);
    let (traffic, mut clients) = (Arc::<Traffic>::default(), JoinSet::new());
    for number in 0..CLIENTS {
        clients.spawn(client(number, ingests[number % 2].clone(), Arc::clone(&traffic)));
    }
    traffic.goes_on().await;
    assert_eq!(books.by_jobs.load(Ordering::Relaxed), 0, "without flags the old service has all");
    set(&system, 0, 25).await;
    holds(&traffic, &books, |percent| (5..60).contains(&percent)).await;
    set(&system, 1, 100).await;
    holds(&traffic, &books, |percent| percent == 100).await;
    let back = reqwest::Client::new().post(format!("{}/v1/flags/report/rollback", system.api()));
    let seen = send(back.json(&json!({ "to": 0, "reason": "to see the way back" }))).await;
    assert_eq!((seen.status, &seen.body["version"]), (200, &json!(3)), "{seen:?}");
    holds(&traffic, &books, |percent| percent == 0).await;
    set(&system, 3, 100).await;
    holds(&traffic, &books, |percent| percent == 100).await;
    traffic.is_over.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let strange = traffic.strange.lock().clone();
    assert!(strange.is_empty(), "{strange:?}");
    let jobs = traffic.jobs.lock().clone();
    let (answers, asked) = (traffic.answers.load(Ordering::Relaxed), books.asked.load(Ordering::Relaxed));
    eprintln!("{answers} answers, {} of them by jobs; the old service was asked {asked} times", jobs.len());
    assert_eq!(jobs.len(), books.by_jobs.load(Ordering::Relaxed), "each job asks once, and each answer names its job");
    assert_eq!(answers, asked, "nothing is lost, and nothing is done twice");
    system.note_accepted(jobs.iter().copied());
    let left = system.finish(PATIENCE).await.unwrap();
    assert!(left.ends().values().all(|end| end.status == JobStatus::Succeeded));
}
