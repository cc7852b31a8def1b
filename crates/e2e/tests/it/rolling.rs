//! Two instances of ingest are replaced one after the other, under load: no caller sees an error, and no stream a gap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use flow::id::JobId;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use test_kit::{Role, TestSystem, eventually};
use tokio_util::sync::CancellationToken;

use crate::client::small_order;
use crate::load::pass;
use crate::stage::{PATIENCE, Stage};
use crate::turn::nearly_alone;

const CALLERS: usize = 4;
const STREAMS: usize = 2;

/// Sends requests to instances that say they are ready, as a load balancer does.
#[derive(Debug)]
pub(crate) struct Balancer {
    http: reqwest::Client,
    instances: Vec<(String, AtomicBool)>,
    turn: AtomicUsize,
    answers: AtomicUsize,
    /// Ends of jobs that streams have told.
    told: AtomicUsize,
}

impl Balancer {
    /// Two instances of ingest.
    pub(crate) fn of(system: &mut TestSystem) -> Arc<Self> {
        let ingests = system.roles().iter().filter(|process| process.role() == Role::Ingest);
        let instances: Vec<_> = ingests.map(|process| (process.url(), AtomicBool::new(true))).collect();
        assert_eq!(instances.len(), 2);
        let none = || AtomicUsize::new(0);
        Arc::new(Self { http: reqwest::Client::new(), instances, turn: none(), answers: none(), told: none() })
    }

    /// Looks at the instances' readiness until it is cancelled.
    pub(crate) async fn look(&self, until: CancellationToken) {
        while !until.is_cancelled() {
            for (url, is_ready) in &self.instances {
                let answer = self.http.get(format!("{url}/readyz")).timeout(Duration::from_secs(5)).send().await;
                is_ready.store(answer.is_ok_and(|answer| answer.status() == 200), SeqCst);
            }
            pass(Duration::from_millis(100)).await;
        }
    }

    /// The answer of one instance; a connection that is refused is tried elsewhere, and nothing else is.
    async fn ask(&self, make: impl Fn(&reqwest::Client, &str) -> RequestBuilder) -> Response {
        self.try_to_ask(make).await.expect("no request is lost")
    }

    /// The same, where a request may be lost.
    pub(crate) async fn try_to_ask(
        &self,
        make: impl Fn(&reqwest::Client, &str) -> RequestBuilder,
    ) -> reqwest::Result<Response> {
        loop {
            let (url, is_ready) = &self.instances[self.turn.fetch_add(1, SeqCst) % self.instances.len()];
            if !is_ready.load(SeqCst) {
                tokio::task::yield_now().await;
                continue;
            }
            match make(&self.http, url).send().await {
                Err(error) if error.is_connect() => {}
                answer => return answer,
            }
        }
    }

    /// Orders one job after the other, and waits for each. Returns them.
    async fn order(&self, caller: usize, until: CancellationToken) -> Vec<JobId> {
        let mut jobs = vec![];
        while !until.is_cancelled() {
            let (key, input) = (uuid::Uuid::now_v7(), small_order(&format!("c-{caller}"), json!({})));
            let answer = self
                .ask(|http, url| {
                    let order =
                        http.post(format!("{url}/v1/flows/saga/jobs")).header("idempotency-key", format!("\"{key}\""));
                    order.header("prefer", "wait=20").json(&input)
                })
                .await;
            let status = answer.status().as_u16();
            assert!([200, 202].contains(&status), "{status}");
            let place = if status == 200 { "content-location" } else { "location" };
            let job = answer.headers()[place].to_str().unwrap().trim_end_matches("/result");
            let job = job.rsplit('/').next().unwrap().to_owned();
            answer.bytes().await.expect("the whole answer");
            // A waiter that was let go at shutdown asks again, as its answer says.
            let path = format!("/v1/jobs/{job}/result?wait=20");
            loop {
                let result = self.ask(|http, url| http.get(format!("{url}{path}"))).await;
                let status = result.status().as_u16();
                result.bytes().await.expect("the whole answer");
                match status {
                    200 => break,
                    404 | 409 | 202 => {}
                    _ => panic!("{status} of the result of {job}"),
                }
            }
            self.answers.fetch_add(1, SeqCst);
            jobs.push(job.parse().unwrap());
        }
        jobs
    }

    /// Follows all jobs, from wherever the last stream ended. Returns how often each job has ended.
    async fn follow(&self, mut cursor: String, until: CancellationToken) -> BTreeMap<String, usize> {
        let mut ends = BTreeMap::new();
        loop {
            let mut stream = self
                .ask(|http, url| {
                    let stream = http.get(format!("{url}/v1/events")).header("accept", "text/event-stream");
                    stream.header("last-event-id", &cursor)
                })
                .await;
            assert_eq!(stream.status(), 200);
            let mut text = String::new();
            loop {
                let chunk = tokio::select! {
                    chunk = stream.chunk() => chunk.expect("a stream ends, and does not break"),
                    () = until.cancelled() => return ends,
                };
                let Some(chunk) = chunk else { break };
                text.push_str(std::str::from_utf8(&chunk).unwrap());
                while let Some((message, rest)) = text.split_once("\n\n") {
                    let field = |name| message.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                    if let (Some(id), Some(data)) = (field("id:"), field("data:")) {
                        cursor = id.to_owned();
                        let event: Value = serde_json::from_str(data).unwrap();
                        if event["type"] == "job.succeeded" {
                            *ends.entry(event["job"].as_str().unwrap().to_owned()).or_default() += 1;
                            self.told.fetch_add(1, SeqCst);
                        }
                    }
                    text = rest.to_owned();
                }
            }
        }
    }
}

/// Ends this instance of ingest as a new version is rolled out, and starts it again.
pub(crate) async fn replace(system: &mut TestSystem, instance: usize) {
    let process = system.roles().iter_mut().filter(|process| process.role() == Role::Ingest).nth(instance);
    let process = process.unwrap();
    assert!(process.terminate(PATIENCE).await.unwrap().success());
    process.restart().unwrap();
    process.wait_until_ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_are_replaced_one_after_the_other_and_no_caller_sees_an_error() {
    let _turn = nearly_alone().await;
    let configure = |builder: test_kit::TestSystemBuilder| {
        builder.role(Role::Ingest, 2).variable("MEANWHILE__INGEST__LEAVE_AFTER_MS", "2000")
    };
    let mut stage = Stage::start_with(configure).await;
    let balancer = Balancer::of(&mut stage.system);
    let page = balancer.ask(|http, url| http.get(format!("{url}/v1/events"))).await.json::<Value>().await.unwrap();
    let begin = page["next"].as_str().unwrap().to_owned();

    let (ordered, seen) = (CancellationToken::new(), CancellationToken::new());
    let (of_looks, until) = (Arc::clone(&balancer), seen.clone());
    let looks = tokio::spawn(async move { of_looks.look(until).await });
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (balancer, until) = (Arc::clone(&balancer), ordered.clone());
            tokio::spawn(async move { balancer.order(caller, until).await })
        })
        .collect();
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| {
            let (balancer, begin, until) = (Arc::clone(&balancer), begin.clone(), seen.clone());
            tokio::spawn(async move { balancer.follow(begin, until).await })
        })
        .collect();
    for instance in [0, 1, 0, 1] {
        let before = balancer.answers.load(SeqCst);
        replace(&mut stage.system, instance).await;
        let more = async || (balancer.answers.load(SeqCst) >= before + 2 * CALLERS).then_some(());
        eventually(PATIENCE, "callers go on", more).await;
    }
    ordered.cancel();
    let mut jobs = vec![];
    for caller in callers {
        jobs.extend(caller.await.unwrap());
    }
    stage.system.note_accepted(jobs.iter().copied());
    stage.ends_of(jobs.clone()).await;
    let all_told = async || (balancer.told.load(SeqCst) >= STREAMS * jobs.len()).then_some(());
    eventually(PATIENCE, "the streams have told of all ends", all_told).await;
    seen.cancel();
    looks.await.unwrap();
    let expected: BTreeMap<String, usize> = jobs.iter().map(|job| (job.to_string(), 1)).collect();
    for stream in streams {
        assert_eq!(stream.await.unwrap(), expected, "a stream has each end once");
    }
    stage.finish().await;
}
