//! A hundred pauses of a worker whose calls are under way, shorter and longer than its session's time-out: whatever
//! another worker finishes meanwhile is never called again by the one that wakes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use flow::id::JobId;
use serde_json::json;
use test_kit::{Answer, Process, Receiver, Request, eventually};

use crate::stage::{PATIENCE, Stage};

const ROUNDS: u64 = 100;
/// Lanes per batch; some of them are those of the worker that is stopped.
const LANES: usize = 6;
/// The session's time-out of the workers.
const SESSION_MS: &str = "2000";

/// It goes back at its second step.
const BACKWARDS: &str = r#"
flow: backwards
key: "{{ input.key }}"
steps:
  - id: a
    http: { method: POST, url: "{{ env.SHOP_URL }}/a" }
    timeout: 60s
    retry: { attempts: 10, backoff: 1ms..20ms }
    compensate: { http: { method: DELETE, url: "{{ env.SHOP_URL }}/a" } }
  - id: b
    http: { method: POST, url: "{{ env.SHOP_URL }}/b", fail_on: [402] }
"#;

/// Both slips of some lanes, and the service's requests.
struct Round<'a> {
    stage: &'a Stage,
    service: &'a Receiver,
    /// The jobs of each lane, in order.
    lanes: Vec<[JobId; 2]>,
}

fn job_of(request: &Request) -> JobId {
    request.header("idempotency-key").split(':').next().unwrap().parse().unwrap()
}

fn is_of_paused(request: &Request) -> bool {
    request.uri.path().starts_with("/paused/")
}

/// The first call that the stopped worker makes of a job's first step is answered after a while, well or badly; all
/// else at once.
fn answer_slowly(service: &Receiver) {
    let asked = Mutex::new(BTreeSet::new());
    service.answer_with(move |request| match (request.method.as_str(), request.uri.path()) {
        ("DELETE", _) => Answer::status(204),
        (_, "/paused/b" | "/steady/b") => Answer::status(402),
        (_, "/paused/a") => {
            let mut asked = asked.lock().unwrap();
            if !asked.insert(job_of(request)) {
                return Answer::status(200);
            }
            let count = asked.len() as u64;
            let status = if count.is_multiple_of(2) { 503 } else { 200 };
            Answer::status(status).after(Duration::from_millis(1_500 + count * 331 % 2_500))
        }
        _ => Answer::status(200),
    });
}

impl<'a> Round<'a> {
    /// Submits two jobs each on more lanes, until the worker that is going to be stopped has some of them.
    async fn begin(stage: &'a Stage, service: &'a Receiver, number: u64) -> Self {
        let mut round = Self { stage, service, lanes: Vec::new() };
        for batch in 0.. {
            for lane in 0..LANES {
                let key = json!({ "key": format!("{number}-{batch}-{lane}") });
                round.lanes.push([stage.submit(key.clone()).await, stage.submit(key).await]);
            }
            let called = eventually(PATIENCE, "every lane is over, or held by its first call", async || {
                let (called, undone) = (round.called_by_paused(0), round.undone());
                let settled = |lane: &[JobId; 2]| called.contains(&lane[0]) || undone.contains(&lane[1]);
                round.lanes.iter().all(settled).then_some(called)
            });
            let called = called.await;
            if round.lanes.iter().any(|lane| called.contains(&lane[0])) {
                break;
            }
        }
        round
    }

    /// The jobs of which the worker that is stopped has called anything, from this request on.
    fn called_by_paused(&self, from: usize) -> BTreeSet<JobId> {
        self.service.requests().iter().skip(from).filter(|request| is_of_paused(request)).map(job_of).collect()
    }

    /// The jobs that have come back to their beginning.
    fn undone(&self) -> BTreeSet<JobId> {
        self.service.requests().iter().filter(|request| request.method == "DELETE").map(job_of).collect()
    }

    async fn until_all_are_undone(&self) {
        eventually(PATIENCE, "all jobs are undone", async || {
            let undone = self.undone();
            self.lanes.iter().flatten().all(|job| undone.contains(job)).then_some(())
        })
        .await;
    }

    /// Stops the worker, for less or for longer than its session lasts. Returns the next round, and how many jobs that
    /// it had begun, or was about to, others had ended when it woke.
    async fn pause(self, worker: &Process, number: u64) -> (Self, usize) {
        worker.pause();
        let is_long = number % 3 == 2;
        let pause_ms = match number % 3 {
            // Shorter; and about as long, so that it wakes while others take over.
            0 => 100 + number * 397 % 1_800,
            1 => 1_500 + number * 397 % 3_000,
            _ => {
                self.stage.ends().await;
                number * 397 % 1_500
            }
        };
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        let (woken_at, called) = (self.service.requests().len(), self.called_by_paused(0));
        worker.resume();
        self.until_all_are_undone().await;
        // Once it has work again, its earlier session is over.
        let next = Self::begin(self.stage, self.service, number + 1).await;
        if !is_long {
            return (next, 0);
        }
        let again = self.called_by_paused(woken_at);
        let taken: Vec<_> = self.lanes.iter().filter(|lane| called.contains(&lane[0])).flatten().collect();
        assert!(taken.iter().all(|job| !again.contains(job)), "round {number}: it calls what others have ended");
        (next, taken.len())
    }
}

/// No step of a job is called once it was undone.
fn check(service: &Receiver) {
    let mut undone_by = BTreeMap::new();
    for request in service.requests() {
        let (job, path) = (job_of(&request), request.uri.path().to_owned());
        if request.method == "DELETE" {
            undone_by.insert(job, path);
        } else if let Some(undone_by) = undone_by.get(&job) {
            panic!("{job}: {path} is called after {undone_by} was undone");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a hundred pauses: scripts/tools/test-faults"]
async fn a_worker_that_wakes_calls_nothing_that_others_have_finished_in_a_hundred_pauses() {
    let service = Receiver::start().await;
    answer_slowly(&service);
    let stage = Stage::new(BACKWARDS).await;
    let [paused, steady] = ["paused", "steady"].map(|name| {
        let url = format!("{}/{name}", service.url());
        let limits = [
            ("SHOP_URL", url.as_str()),
            ("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", SESSION_MS),
            ("MEANWHILE__WORKERS__TRANSACTION_TIMEOUT_MS", SESSION_MS),
            // Nobody keeps the holds of long calls here.
            ("MEANWHILE__WORKERS__DETACH_AFTER_MS", "60000"),
        ];
        stage.process(name, &limits)
    });
    let mut finished = 0;
    let mut round = Round::begin(&stage, &service, 0).await;
    for number in 0..ROUNDS {
        let (next, jobs) = round.pause(&paused, number).await;
        (round, finished) = (next, finished + jobs);
        check(&service);
    }
    stage.ends().await;
    drop((paused, steady));
    stage.tokens().await;
    eprintln!("{ROUNDS} pauses; others ended {finished} jobs of the worker that was stopped");
    assert!(finished as u64 >= ROUNDS / 3 * 2, "in each long pause they end both jobs of a lane at least");
}
