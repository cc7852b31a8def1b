//! Jobs that somebody wants cancelled, in every state and at any moment, while workers come and go.
//!
//! `E2E_CANCELS=1000` cancels so many jobs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use client::{Client, Error};
use flow::event::JobStatus;
use flow::id::JobId;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_kit::{Role, eventually, psql, read_topic};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::chance::{Chance, TellSeed, seed};
use crate::client::small_order;
use crate::load::pass;
use crate::stage::{PATIENCE, Stage};
use crate::turn::{beside_others, nearly_alone};

/// Jobs in `make test`.
const JOBS_DEFAULT: u64 = 120;
/// Jobs that are under way at once.
const IN_FLIGHT: usize = 60;
/// The cancel of a job comes within this time.
const MOMENT_MS_MAX: u64 = 10_000;
/// A step takes at most so long.
const STEP_MS_MAX: u64 = 1_500;
const KILLS_MIN: usize = 4;

/// The saga, with calls that are broken off.
fn flow_that_aborts() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let flows = test_kit::repository().join("crates/e2e/flows");
    std::fs::copy(flows.join("saga.schema.json"), folder.path().join("saga.schema.json")).unwrap();
    let saga = std::fs::read_to_string(flows.join("saga.yaml")).unwrap();
    let hasty = saga.replace("flow: saga", "flow: hasty");
    // What was broken off leaves nothing to undo, mostly: it is undone once more soon.
    let hasty = hasty
        .replace("    timeout: 20s\n    retry:", "    timeout: 20s\n    cancel: abort\n    settle: 1s\n    retry:");
    assert_eq!(hasty.matches("cancel: abort").count(), 3);
    std::fs::write(folder.path().join("hasty.yaml"), hasty).unwrap();
    folder
}

/// The answers to the cancels.
#[derive(Debug, Default)]
struct Asked {
    /// Jobs whose cancel was stored, or that were cancelled already.
    taken: Mutex<Vec<JobId>>,
    too_late: AtomicUsize,
}

/// Asks until there is an answer.
async fn cancel(client: &Client, job: JobId, asked: &Asked) {
    loop {
        match client.cancel(&job.to_string(), Some("a test")).await {
            Ok(()) => return asked.taken.lock().push(job),
            Err(Error::Problem(problem)) if problem.status == 409 => {
                asked.too_late.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(error) if error.may_pass() => pass(Duration::from_millis(100)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

fn draw(chance: &mut Chance, number: u64) -> Value {
    let mut slow = || format!("slow:{}", chance.below(STEP_MS_MAX));
    let (inventory, payment, shipping) = (slow(), slow(), slow());
    let simulate = match chance.below(20) {
        0 => json!({ "inventory": inventory, "payment": "declined" }),
        1 => json!({ "inventory": "busy:1", "payment": payment, "shipping": "flaky:2" }),
        _ => json!({ "inventory": inventory, "payment": payment, "shipping": shipping }),
    };
    small_order(&format!("c-{}", number % 150), simulate)
}

/// Submits jobs, and cancels each at a moment of chance.
async fn submit_and_cancel(client: Client, seed: u64, jobs: u64) -> (Vec<JobId>, Arc<Asked>) {
    let (asked, room) = (Arc::new(Asked::default()), Arc::new(Semaphore::new(IN_FLIGHT)));
    let mut tasks = JoinSet::new();
    for number in 0..jobs {
        let (client, asked, room) = (client.clone(), Arc::clone(&asked), Arc::clone(&room));
        let mut chance = Chance::new(seed.wrapping_mul(100_000).wrapping_add(number));
        tasks.spawn(async move {
            let _room = room.acquire().await.unwrap();
            let flow = ["saga", "hasty"][chance.below(2) as usize];
            let key = uuid::Uuid::now_v7().to_string();
            let job = test_kit::submit(&client, flow, &key, &draw(&mut chance, number)).await.unwrap();
            pass(chance.ms_below(MOMENT_MS_MAX)).await;
            cancel(&client, job, &asked).await;
            job
        });
    }
    (tasks.join_all().await, asked)
}

/// Waits until every cancel is taken back.
async fn until_taken_back(stage: &Stage, at_least: usize) {
    let topic = stage.system.topics().cancels();
    eventually(PATIENCE, "all cancels are taken back", async || {
        let records = read_topic(stage.system.brokers(), &topic).await.unwrap();
        let last: BTreeMap<_, bool> = records.into_iter().map(|record| (record.key, record.value.is_some())).collect();
        (last.len() >= at_least && last.values().all(|is_open| !is_open)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_that_is_cancelled_at_any_moment_ends_once_while_workers_are_killed() {
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let jobs = std::env::var("E2E_CANCELS").map_or(JOBS_DEFAULT, |text| text.parse().expect("a number"));
    let flows = flow_that_aborts();
    let mut stage = Stage::start_with(|builder| {
        builder
            .flows(flows.path())
            .role(Role::Workers, 2)
            .variable("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "3000")
            .variable("MEANWHILE__WORKERS__DETACH_AFTER_MS", "500")
    })
    .await;
    let workers: Vec<usize> =
        (0..stage.system.roles().len()).filter(|place| stage.system.roles()[*place].role() == Role::Workers).collect();
    let cancelling = tokio::spawn(submit_and_cancel(stage.system.client(), seed, jobs));
    let mut kills = 0;
    while kills < KILLS_MIN || !cancelling.is_finished() {
        pass(Duration::from_secs(2) + chance.ms_below(4_000)).await;
        let worker = &mut stage.system.roles()[workers[kills % workers.len()]];
        worker.process().kill9();
        pass(chance.ms_below(1_000)).await;
        worker.restart().unwrap();
        worker.wait_until_ready().await.unwrap();
        kills += 1;
    }
    let (accepted, asked) = cancelling.await.unwrap();
    stage.system.note_accepted(accepted.iter().copied());
    let ends = stage.ends_of(accepted.iter().copied()).await;
    let (taken, too_late) = (asked.taken.lock().clone(), asked.too_late.load(Ordering::Relaxed));
    until_taken_back(&stage, 1).await;
    for job in &taken {
        let succeeded = ends[job].status == JobStatus::Succeeded;
        eventually(PATIENCE, "the status is final", async || {
            let status = stage.system.status(*job).await.ok()?;
            assert!(status["cancel"]["reason"] == "a test" || status["compensation"].is_object(), "{status}");
            let is_final = status["status"] == ends[job].status.as_str();
            is_final.then(|| assert_eq!(status["cancel_too_late"] == true, succeeded, "{status}"))
        })
        .await;
    }
    let left = stage.finish().await;
    let counts = [JobStatus::Succeeded, JobStatus::Failed, JobStatus::Cancelled].map(|status| left.count(status));
    eprintln!(
        "{} jobs, {kills} kills: {counts:?} succeeded, failed, cancelled; {too_late} asked at the end",
        accepted.len()
    );
    assert_eq!((counts.iter().sum::<usize>(), left.tokens.dead_letters), (accepted.len(), 0));
    assert!(counts[2] > accepted.len() / 10 && counts[0] > 0, "some come in time, and some do not: {counts:?}");
    assert_eq!(taken.len() + too_late, accepted.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_rests_is_cancelled_from_the_command_line() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let waits = stage.submit("patient", &small_order("c-1", json!({ "payment": "busy:600" }))).await;
    let parked =
        stage.submit("patient", &small_order("c-2", json!({ "inventory": "undo_error", "payment": "declined" }))).await;
    for (job, reason) in [(waits, "backoff"), (parked, "attention")] {
        let rests = format!(
            "update orchestrator.holds set release_at = release_at + interval '1 day'
             where job = '{job}' and reason = '{reason}' returning 1"
        );
        eventually(PATIENCE, reason, async || {
            psql(stage.system.database_url(), &rests).unwrap().lines().next().map(drop)
        })
        .await;
    }
    for job in [waits, parked] {
        let arguments = ["jobs", "cancel", &job.to_string(), "--reason", "ordered twice", "--url", &stage.system.api()];
        assert_eq!(test_kit::meanwhile(&arguments, &[]).await.unwrap().trim(), job.to_string());
    }
    assert_eq!(stage.end_of(waits).await.status, JobStatus::Cancelled);
    eventually(PATIENCE, "the status document is final", async || {
        let status = stage.system.status(waits).await.unwrap();
        (status["status"] == "cancelled").then(|| {
            assert_eq!(status["compensation"]["undone"], json!(["charge", "reserve"]), "{status}");
            assert_eq!(status["cancel"]["reason"], "ordered twice", "{status}");
        })
    })
    .await;
    // One that is being undone, and stuck, stays so: a person has to decide.
    assert_eq!(stage.system.status(parked).await.unwrap()["status"], "needs_attention");
    stage.shop.mend(true);
    stage.system.client().retry(&parked.to_string(), None).await.unwrap();
    assert_eq!(stage.end_of(parked).await.status, JobStatus::Failed);
    until_taken_back(&stage, 1).await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_no_worker_has_taken_yet_is_cancelled_and_leaves_nothing() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    stage.system.role(Role::Workers).process().kill9();
    let job = stage.submit("saga", &small_order("c-1", json!({}))).await;
    stage.system.client().cancel(&job.to_string(), None).await.unwrap();
    stage.system.role(Role::Workers).restart().unwrap();
    assert_eq!(stage.end_of(job).await.status, JobStatus::Cancelled);
    let left = stage.finish().await;
    assert!(left.shop.states().inventory.entries.is_empty());
}
