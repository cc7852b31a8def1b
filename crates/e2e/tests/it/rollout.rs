//! A team moves an endpoint under traffic: 0 % -> 25 % -> 100 % -> back -> 100 %. A client that knows only the old
//! service's answers goes through all of it, on two instances, and sees nothing that it does not understand. The old
//! service is the FastAPI one of `examples/legacy`, with books beside it (`crates/e2e/legacy`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use flow::event::JobStatus;
use flow::id::JobId;
use parking_lot::Mutex;
use reqwest::Response;
use serde_json::{Value, json};
use test_kit::{Launch, Port, Process, Role, TestSystem, eventually, http_client, repository, tool_path};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::send;
use crate::rolling::{Balancer, replace};
use crate::stage::PATIENCE;
use crate::turn::nearly_alone;

/// The time that the old service's clients have always given it.
const CLIENTS_TIMEOUT: Duration = Duration::from_secs(60);
const CLIENTS: usize = 6;
/// Answers that each stage of the rollout must see.
const ANSWERS: usize = 40;

/// The old service, in a process of its own.
struct OldService {
    url: String,
    _process: Process,
    _port: Port,
}

/// The reports that the old service was asked for, and those of them that came from a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Books {
    asked: usize,
    by_jobs: usize,
}

impl OldService {
    /// `slow_s`: the time of a report, in seconds.
    async fn start(slow_s: &str) -> Self {
        let (packages, port) = (tool_path("legacy-python").unwrap(), Port::take().unwrap());
        let folders = [packages, repository().join("examples/legacy"), repository().join("crates/e2e/legacy")];
        let launch = Launch::new("old-service", "python3").args(["-m", "uvicorn", "counted:app", "--no-access-log"]);
        let launch = launch.args(["--host", "127.0.0.1", "--port", &port.number().to_string()]);
        let launch = launch.env("PYTHONPATH", std::env::join_paths(folders).unwrap()).env("SLOW_S", slow_s);
        let mut process = Process::start(launch.env("PYTHONDONTWRITEBYTECODE", "1")).unwrap();
        let url = format!("http://127.0.0.1:{}", port.number());
        let ready = async || http_client().get(format!("{url}/books")).send().await.is_ok();
        process.wait_until(PATIENCE, "it answers", ready).await.unwrap();
        Self { url, _process: process, _port: port }
    }

    async fn books(&self) -> Books {
        let books = send(http_client().get(format!("{}/books", self.url))).await.body;
        let count = |name: &str| usize::try_from(books[name].as_u64().unwrap()).unwrap();
        Books { asked: count("asked"), by_jobs: count("by_jobs") }
    }

    /// Two instances of ingest in front of it.
    async fn behind_two(&self, leave_after_ms: &str) -> TestSystem {
        let builder = TestSystem::builder().role(Role::Ingest, 2).flows(repository().join("examples/legacy"));
        let builder = builder.variable("MEANWHILE__INGEST__LEAVE_AFTER_MS", leave_after_ms);
        builder.variable("LEGACY_URL", &self.url).start().await.unwrap()
    }
}

/// The old service's answer, byte for byte.
fn written(asked: &Value) -> String {
    format!(r#"{{"customer":{},"number":{},"pages":3}}"#, asked["customer"], asked["number"])
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
    /// Clients of these instances.
    fn begin(balancer: &Arc<Balancer>) -> (Arc<Self>, JoinSet<()>) {
        let (traffic, mut clients) = (Arc::<Self>::default(), JoinSet::new());
        for number in 0..CLIENTS {
            clients.spawn(client(number, Arc::clone(balancer), Arc::clone(&traffic)));
        }
        (traffic, clients)
    }

    /// Returns once so many more answers have come.
    async fn goes_on(&self, answers: usize) {
        let from = self.answers.load(Ordering::Relaxed);
        let more = || self.answers.load(Ordering::Relaxed) - from;
        eventually(PATIENCE, "the traffic goes on", async || (more() >= answers).then_some(())).await;
        let strange = self.strange.lock();
        assert!(strange.is_empty(), "{strange:?}");
    }

    /// Ends it, and holds what it has met to the old service's books.
    async fn end(&self, clients: JoinSet<()>, old: &OldService, mut system: TestSystem) {
        self.is_over.store(true, Ordering::Relaxed);
        clients.join_all().await;
        let strange = self.strange.lock().clone();
        assert!(strange.is_empty(), "{strange:?}");
        let (jobs, answers) = (self.jobs.lock().clone(), self.answers.load(Ordering::Relaxed));
        let Books { asked, by_jobs } = old.books().await;
        eprintln!("{answers} answers, {} of them by jobs; the old service was asked {asked} times", jobs.len());
        assert_eq!(jobs.len(), by_jobs, "each job asks once, and each answer names its job");
        assert_eq!(answers, asked, "nothing is lost, and nothing is done twice");
        system.note_accepted(jobs.iter().copied());
        let left = system.finish(PATIENCE).await.unwrap();
        assert!(left.ends().values().all(|end| end.status == JobStatus::Succeeded));
    }

    /// The strangeness of an answer to this request, for a client that knows only the old service's.
    async fn judge(&self, body: &Value, answer: reqwest::Result<Response>) -> Option<String> {
        let answer = match answer {
            Ok(answer) if answer.status() == 200 => answer,
            Ok(answer) => return Some(format!("{}: {:?}", answer.status(), answer.text().await)),
            Err(error) => return Some(format!("{error:?}")),
        };
        let header = |name: &str| answer.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
        let (location, media_type) = (header("content-location"), header("content-type"));
        let job: Option<JobId> =
            location.and_then(|address| address.split('/').nth(3).unwrap_or_default().parse().ok());
        self.jobs.lock().extend(job);
        match (answer.text().await, written(body)) {
            (Ok(got), wanted) if got == wanted && media_type.as_deref() == Some("application/json") => None,
            (got, wanted) => Some(format!("{got:?} ({media_type:?}), not {wanted}")),
        }
    }
}

/// A client that was written for the old service alone: no `Prefer`, no keys, and only 200 is an answer.
async fn client(number: usize, balancer: Arc<Balancer>, traffic: Arc<Traffic>) {
    for round in 0.. {
        if traffic.is_over.load(Ordering::Relaxed) {
            return;
        }
        // Many customers, so that a percentage takes some in and leaves some out.
        let body = json!({ "customer": format!("c-{number}-{}", round % 40), "number": round });
        let asking =
            balancer.try_to_ask(|http, url| http.post(format!("{url}/reports")).json(&body).timeout(CLIENTS_TIMEOUT));
        let told = traffic.judge(&body, asking.await).await;
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
async fn holds(traffic: &Traffic, old: &OldService, is_wanted: impl Fn(usize) -> bool) {
    let settled = async || {
        let before = old.books().await;
        traffic.goes_on(ANSWERS).await;
        let after = old.books().await;
        let (asked, by_jobs) = (after.asked - before.asked, after.by_jobs - before.by_jobs);
        is_wanted(by_jobs * 100 / asked.max(1)).then_some(())
    };
    eventually(PATIENCE, "the flags hold", settled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_knows_only_200_goes_through_a_rollout_and_back_and_sees_nothing_strange() {
    let _turn = nearly_alone().await;
    let old = OldService::start("0.3").await;
    let mut system = old.behind_two("0").await;
    let (traffic, clients) = Traffic::begin(&Balancer::of(&mut system));
    traffic.goes_on(ANSWERS).await;
    assert_eq!(old.books().await.by_jobs, 0, "without flags the old service has all");
    set(&system, 0, 25).await;
    holds(&traffic, &old, |percent| (5..60).contains(&percent)).await;
    set(&system, 1, 100).await;
    holds(&traffic, &old, |percent| percent == 100).await;
    let back = reqwest::Client::new().post(format!("{}/v1/flags/report/rollback", system.api()));
    let seen = send(back.json(&json!({ "to": 0, "reason": "to see the way back" }))).await;
    assert_eq!((seen.status, &seen.body["version"]), (200, &json!(3)), "{seen:?}");
    holds(&traffic, &old, |percent| percent == 0).await;
    set(&system, 3, 100).await;
    holds(&traffic, &old, |percent| percent == 100).await;
    traffic.end(clients, &old, system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_are_held_for_an_outcome_see_nothing_of_a_rolling_restart() {
    let _turn = nearly_alone().await;
    // Longer than an instance still takes requests: whoever asks at the end of that time is held beyond it.
    let old = OldService::start("3").await;
    let mut system = old.behind_two("1000").await;
    set(&system, 0, 100).await;
    let (balancer, seen) = (Balancer::of(&mut system), CancellationToken::new());
    let (of_looks, until) = (Arc::clone(&balancer), seen.clone());
    let looks = tokio::spawn(async move { of_looks.look(until).await });
    let (traffic, clients) = Traffic::begin(&balancer);
    for instance in [0, 1, 0] {
        traffic.goes_on(CLIENTS).await;
        replace(&mut system, instance).await;
    }
    traffic.goes_on(CLIENTS).await;
    seen.cancel();
    looks.await.unwrap();
    traffic.end(clients, &old, system).await;
}
