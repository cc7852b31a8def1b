//! Jobs that sleep and wait for signals, while everything is killed. `E2E_SIGNALS=1000` has so many jobs.

use std::time::Duration;

use client::Client;
use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use serde_json::json;
use test_kit::Role;
use tokio::task::JoinSet;

use crate::chance::{Chance, TellSeed, seed};
use crate::client::small_order;
use crate::kills::until_called;
use crate::load::{pass, signal};
use crate::stage::{PATIENCE, Stage};
use crate::turn::{beside_others, nearly_alone};

const JOBS_DEFAULT: u64 = 240;
/// The pause between two attempts of a caller.
const AGAIN: Duration = Duration::from_millis(100);
/// Callers at once.
const CALLERS: u64 = 16;

/// Waits until the job waits for its signal.
async fn until_it_waits(client: &Client, job: JobId) {
    let waiting = async {
        loop {
            let status = client.status(&job.to_string()).await;
            let waits = |step: &client::Step| step.id == "consent" && step.waiting_for.is_some();
            if status.is_ok_and(|status| status.steps.iter().any(waits)) {
                return;
            }
            pass(AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the job waits");
}

/// One caller's jobs: half of the signals are sent at once, the others when the job waits for them.
async fn call(client: Client, seed: u64, jobs_each: u64) -> Vec<(JobId, u64)> {
    let mut chance = Chance::new(seed);
    let mut jobs = Vec::new();
    for number in 0..jobs_each {
        let n = seed * 10_000 + number;
        let input = small_order(&format!("c-{}", chance.below(500)), json!({}));
        let job = test_kit::submit(&client, "consent", &uuid::Uuid::now_v7().to_string(), &input).await.unwrap();
        jobs.push((job, n));
        if number % 2 == 0 {
            signal(&client, job, "consent", &json!({ "n": n }).to_string()).await;
        }
    }
    for (place, (job, n)) in jobs.iter().enumerate() {
        if place % 2 == 1 {
            until_it_waits(&client, *job).await;
            signal(&client, *job, "consent", &json!({ "n": n }).to_string()).await;
        }
        // Once more under the same key: it is the same signal.
        signal(&client, *job, "consent", &json!({ "n": n }).to_string()).await;
    }
    jobs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_loses_a_signal_or_a_sleeping_job_whichever_comes_first() {
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let jobs = std::env::var("E2E_SIGNALS").map_or(JOBS_DEFAULT, |text| text.parse().expect("a number"));
    let mut stage = Stage::start_with(|builder| {
        builder.role(Role::Workers, 2).variable("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "3000")
    })
    .await;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(call(stage.system.client(), seed % 1_000 + caller, jobs / CALLERS));
    }
    let (jobs, kills) = until_called(&mut stage, &mut chance, callers, (0, 1_500)).await;
    stage.system.note_accepted(jobs.iter().map(|(job, _)| *job));
    let ends = stage.ends_of(jobs.iter().map(|(job, _)| *job)).await;
    for (job, n) in &jobs {
        let end = &ends[job];
        assert_eq!((end.status, &end.data), (JobStatus::Succeeded, &Some(json!({ "n": n }))), "{job}");
    }
    let left = stage.finish().await;
    let count = |kind| left.tokens.events.iter().filter(|event| event.kind == kind).count();
    // Each rests three times; the remark never comes.
    assert_eq!((count(EventKind::StepWaiting), count(EventKind::StepSkipped)), (3 * jobs.len(), jobs.len()));
    assert_eq!(left.tokens.dead_letters, 0);
    eprintln!("{} jobs, {kills} kills", jobs.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_from_the_command_line_reaches_the_job_and_is_told() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let job = stage.submit("consent", &small_order("c-1", json!({}))).await;
    let url = stage.system.api();
    let arguments = ["jobs", "signal", &job.to_string(), "consent", r#"{"n":17}"#, "--url", &url];
    assert_eq!(test_kit::meanwhile(&arguments, &[]).await.unwrap().trim(), job.to_string());
    assert_eq!(stage.end_of(job).await.data, Some(json!({ "n": 17 })));
    let told = test_kit::meanwhile(&["jobs", "show", &job.to_string(), "--url", &url], &[]).await.unwrap();
    assert!(told.contains("sleeps for 0.2 s") && told.contains("waits for `consent`, 30 min at most"), "{told}");
    assert!(told.contains("no signal `remark` came in time; the job goes on"), "{told}");
    let refused = test_kit::meanwhile(&["jobs", "signal", &job.to_string(), "consnt", "--url", &url], &[]).await;
    assert!(refused.is_err(), "{refused:?}");
    stage.finish().await;
}
