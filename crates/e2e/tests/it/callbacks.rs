//! Steps whose services accept the work and do it later, while everything is killed. `E2E_CALLBACKS=1000` has so many
//! jobs.

use client::Client;
use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use serde_json::json;
use test_kit::{Role, repository};
use tokio::task::JoinSet;

use crate::chance::{Chance, TellSeed, seed};
use crate::kills::until_called;
use crate::stage::Stage;
use crate::turn::{beside_others, nearly_alone};

const JOBS_DEFAULT: u64 = 120;
/// Callers at once.
const CALLERS: u64 = 8;
/// How the payment service ends its work, and whether the job succeeds then.
const PAYMENTS: [(&str, bool); 8] = [
    ("early", true),
    ("after:50", true),
    ("after:1500", true),
    ("twice:100", true),
    // Longer than the step's time: the call times out, and its callback has come already.
    ("unanswered:4000", true),
    ("retry_once", true),
    ("failed", false),
    ("after:0", true),
];
/// How the shipping service does.
const SHIPMENTS: [&str; 3] = ["after:300", "silent", "after:2000"];

async fn stage(workers: u32) -> Stage {
    Stage::start_with(|builder| {
        builder
            .callbacks()
            .flows(repository().join("crates/e2e/later"))
            .role(Role::Workers, workers)
            .variable("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "3000")
    })
    .await
}

/// One caller's jobs, and whether each is to succeed.
async fn call(client: Client, caller: u64, jobs_each: u64) -> Vec<(JobId, bool)> {
    let mut jobs = Vec::new();
    for number in 0..jobs_each {
        let n = caller * jobs_each + number;
        let (payment, succeeds) = PAYMENTS[n as usize % PAYMENTS.len()];
        let shipping = SHIPMENTS[n as usize % SHIPMENTS.len()];
        let input = json!({ "customer_id": format!("c-{n}"), "payment": payment, "shipping": shipping });
        let key = uuid::Uuid::now_v7().to_string();
        // Of a failure that a lost worker has caused, nobody knows for sure: a person is asked.
        let flow = if n.is_multiple_of(3) && succeeds { "register" } else { "later" };
        jobs.push((test_kit::submit(&client, flow, &key, &input).await.unwrap(), succeeds));
    }
    jobs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_loses_a_callback_or_a_poll_and_the_books_agree() {
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let jobs = std::env::var("E2E_CALLBACKS").map_or(JOBS_DEFAULT, |text| text.parse().expect("a number"));
    let mut stage = stage(2).await;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(call(stage.system.client(), caller, jobs / CALLERS));
    }
    let (jobs, kills) = until_called(&mut stage, &mut chance, callers, (12, 1_000)).await;
    stage.system.note_accepted(jobs.iter().map(|(job, _)| *job));
    let ends = stage.ends_of(jobs.iter().map(|(job, _)| *job)).await;
    for (job, succeeds) in &jobs {
        let expected = if *succeeds { JobStatus::Succeeded } else { JobStatus::Failed };
        assert_eq!(ends[job].status, expected, "{job}: {:?}", ends[job].data);
    }
    let left = stage.finish().await;
    let waits = left.tokens.events.iter().filter(|event| event.kind == EventKind::StepWaiting).count();
    // A callback's wait each, and a poll's unless the charge has failed. A retry waits twice.
    assert!(waits >= jobs.len(), "{waits}");
    assert_eq!(left.tokens.dead_letters, 0);
    let polled =
        left.tokens.events.iter().find(|event| event.data.as_ref().is_some_and(|data| data["poll"].is_object()));
    let host = polled.map(|event| event.data.clone().unwrap()["poll"]["host"].clone());
    assert_eq!(host, Some(json!(left.shop.urls().shipping.trim_start_matches("http://"))), "a poll names its host");
    let told = left.shop.states().payment.callbacks;
    assert!(told.keys().all(|status| *status == 202), "every callback is taken, whenever it comes: {told:?}");
    eprintln!("{} jobs, {kills} kills, callbacks {told:?}", jobs.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_that_never_comes_is_waited_for_until_its_time_and_the_step_is_undone() {
    let _turn = beside_others().await;
    let mut stage = stage(1).await;
    let job = stage.submit("forgotten", &json!({})).await;
    let end = stage.end_of(job).await;
    let failure = end.data.unwrap();
    assert_eq!(
        (end.status, &failure["code"], &failure["step"]),
        (JobStatus::Failed, &json!("timed-out"), &json!("charge"))
    );
    let status = stage.status_at_end(job).await;
    assert_eq!(status["compensation"]["undone"], json!(["charge"]), "{status}");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_waits_for_its_callback_heeds_a_cancel_and_is_undone() {
    let _turn = beside_others().await;
    let mut stage = stage(1).await;
    let input = json!({ "customer_id": "c", "payment": "silent" });
    let job = stage.submit("later", &input).await;
    let client = stage.system.client();
    test_kit::eventually(crate::stage::PATIENCE, "the step waits for its callback", async || {
        let status = client.status(&job.to_string()).await.ok()?;
        status.steps.iter().any(|step| step.id == "charge" && step.waiting_for.is_some()).then_some(())
    })
    .await;
    client.cancel(&job.to_string(), None).await.unwrap();
    assert_eq!(stage.end_of(job).await.status, JobStatus::Cancelled);
    stage.finish().await;
}
