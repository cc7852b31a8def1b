//! Charges that must not be repeated, by a service that knows no idempotency keys: whatever happens to workers, nobody
//! pays twice, and nothing that was paid is forgotten.
//!
//! `E2E_CHARGES=1000` makes so many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use flow::slip::HoldReason;
use parking_lot::Mutex;
use serde_json::{Value, json};
use shop::State;
use test_kit::Role;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::chance::{Chance, TellSeed, seed};
use crate::client::{send, small_order};
use crate::load::pass;
use crate::stage::{Left, PATIENCE, Stage};
use crate::turn::{beside_others, nearly_alone};

/// Jobs in `make test`.
const JOBS_DEFAULT: u64 = 120;
/// Jobs that are under way at once.
const IN_FLIGHT: usize = 40;
/// A charge takes at most so long, ms; its flow waits for longer.
const CHARGE_MS_MAX: u64 = 2_500;
const FAULTS_MIN: usize = 5;

/// How often each order was charged, refunded or not.
fn charges(state: &State) -> BTreeMap<&str, u32> {
    let mut times = BTreeMap::new();
    for entry in &state.entries {
        *times.entry(entry.order.as_str()).or_default() += 1;
    }
    times
}

#[track_caller]
fn assert_nobody_paid_twice(left: &Left) {
    let states = left.shop.states();
    let twice: Vec<_> = charges(&states.payment).into_iter().filter(|(_, times)| *times > 1).collect();
    assert!(twice.is_empty(), "charged more than once: {twice:?}");
}

fn draw(chance: &mut Chance, number: u64) -> Value {
    let slow = format!("slow:{}", chance.below(CHARGE_MS_MAX));
    let payment = match chance.below(20) {
        0..3 => "timeout_after_effect:6000".to_owned(),
        3..6 => "timeout_before_effect:6000".to_owned(),
        6 => "declined".to_owned(),
        7 => "flaky:2".to_owned(),
        8 => "busy:1".to_owned(),
        _ => slow,
    };
    let shipping = if chance.below(10) == 0 { "out_of_stock" } else { "" };
    small_order(&format!("c-{number}"), json!({ "payment": payment, "shipping": shipping }))
}

async fn until_at_rest(client: &Client, job: &str) {
    while !client.status(job).await.is_ok_and(|job| job.status.is_at_rest()) {
        pass(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_and_no_pause_of_a_worker_charges_twice_or_forgets_a_charge() {
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let mut stage = Stage::start_with(|builder| {
        let builder = builder.role(Role::Workers, 2).variable("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "3000");
        builder.variable("MEANWHILE__WORKERS__LEASE_MS", "4000")
    })
    .await;
    let jobs: u64 = std::env::var("E2E_CHARGES").map_or(JOBS_DEFAULT, |text| text.parse().expect("a number"));
    let (room, accepted) = (Arc::new(Semaphore::new(IN_FLIGHT)), Arc::new(Mutex::new(Vec::new())));
    let mut callers = JoinSet::new();
    for number in 0..jobs {
        let (client, room, accepted) = (stage.system.client(), Arc::clone(&room), Arc::clone(&accepted));
        let input = draw(&mut chance, number);
        callers.spawn(async move {
            let _room = room.acquire_owned().await.unwrap();
            let key = uuid::Uuid::now_v7().to_string();
            let job = test_kit::submit(&client, "cash", &key, &input).await.unwrap();
            accepted.lock().push(job);
            tokio::time::timeout(PATIENCE, until_at_rest(&client, &job.to_string())).await.expect("the job ends");
        });
    }
    let mut faults = 0;
    while !callers.is_empty() || faults < FAULTS_MIN {
        pass(chance.ms_below(1_500)).await;
        let mut workers: Vec<_> =
            stage.system.roles().iter_mut().filter(|process| process.role() == Role::Workers).collect();
        let victim = workers.swap_remove(chance.below(2) as usize);
        if chance.below(3) == 0 {
            victim.process().pause();
            pass(Duration::from_secs(5) + chance.ms_below(2_000)).await;
            victim.process().resume();
        } else {
            victim.process().kill9();
            pass(chance.ms_below(1_000)).await;
            victim.restart().unwrap();
            victim.wait_until_ready().await.unwrap();
        }
        faults += 1;
        while let Some(ended) = callers.try_join_next() {
            ended.unwrap();
        }
    }
    let accepted = std::mem::take(&mut *accepted.lock());
    stage.system.note_accepted(accepted.iter().copied());
    let left = stage.finish().await;
    assert_nobody_paid_twice(&left);
    assert_eq!(left.tokens.ends().len(), jobs as usize);
    let asked = left.tokens.holds.iter().filter(|hold| hold.reason == HoldReason::Timer).count();
    assert!(left.count(JobStatus::Succeeded) > accepted.len() / 2 && asked > 0);
    eprintln!("{jobs} charges, {faults} faults, {asked} doubts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_whose_answer_is_lost_is_found_and_one_that_was_not_made_is_made() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let made = stage.submit("cash", &small_order("c-1", json!({ "payment": "timeout_after_effect:6000" }))).await;
    let not_made = stage.submit("cash", &small_order("c-2", json!({ "payment": "timeout_before_effect:6000" }))).await;
    let ends = stage.ends_of([made, not_made]).await;
    assert!(ends.values().all(|end| end.status == JobStatus::Succeeded), "{ends:?}");
    let left = stage.finish().await;
    assert_nobody_paid_twice(&left);
    for (job, calls) in [(made, 1), (not_made, 2)] {
        let of_job = left.tokens.events.iter().filter(|event| event.job == job);
        let begun = of_job.clone().filter(|event| event.kind == EventKind::StepRunning).count();
        let done = of_job
            .clone()
            .find(|event| event.step.as_deref() == Some("charge") && event.kind == EventKind::StepSucceeded);
        assert_eq!((begun, done.unwrap().attempts), (calls, calls as u32), "each call is marked");
    }
}

/// The flow `cash` without its `verify`, under the name `blind`.
fn blind() -> tempfile::TempDir {
    let (ours, folder) = (test_kit::repository().join("crates/e2e/flows"), tempfile::tempdir().unwrap());
    let cash = std::fs::read_to_string(ours.join("cash.yaml")).unwrap();
    let (before, after) = cash.split_once("    verify:\n").unwrap();
    let (_, after) = after.split_once("      timeout: 10s\n").unwrap();
    let flow = format!("{before}{after}").replace("flow: cash", "flow: blind");
    std::fs::write(folder.path().join("blind.yaml"), flow).unwrap();
    std::fs::copy(ours.join("saga.schema.json"), folder.path().join("saga.schema.json")).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_says_how_a_charge_has_ended_that_nobody_can_ask_about_and_nobody_pays_twice() {
    let _turn = beside_others().await;
    let flows = blind();
    let mut stage = Stage::start_with(|builder| builder.flows(flows.path())).await;
    let made = stage.submit("blind", &small_order("c-1", json!({ "payment": "timeout_after_effect:6000" }))).await;
    let not_made = stage.submit("blind", &small_order("c-2", json!({ "payment": "timeout_before_effect:6000" }))).await;
    let list = format!("{}/v1/dead-letters?step=charge", stage.system.api());
    let http = test_kit::http_client();
    test_kit::eventually(PATIENCE, "both are parked at their charge", async || {
        let parked = send(http.get(&list)).await.body;
        (parked["dead_letters"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    let url = stage.system.api();
    let say = async |job: JobId, said: &[&str]| {
        let job = job.to_string();
        let arguments = [&["jobs", "retry", &job, "--url", &url], said].concat();
        test_kit::meanwhile(&arguments, &[]).await
    };
    // The API may not have read the event yet that the list is ahead of.
    for (job, said) in [(made, &["--succeeded", r#"{"id":"by hand"}"#][..]), (not_made, &["--failed"][..])] {
        test_kit::eventually(PATIENCE, "the word is taken", async || say(job, said).await.ok()).await;
    }
    let ends = stage.ends_of([made, not_made]).await;
    assert_eq!((ends[&made].status, ends[&not_made].status), (JobStatus::Succeeded, JobStatus::Failed));
    let status = stage.status_at_end(made).await;
    assert_eq!((&status["result"]["paid"], &status["steps"][1]["decided_by"]), (&json!("by hand"), &json!("default")));
    assert_eq!(stage.status_at_end(not_made).await["compensation"]["undone"], json!(["reserve"]));
    let late = say(made, &["--failed"]).await.unwrap_err();
    assert!(format!("{late:#}").contains("outcome-known") || format!("{late:#}").contains("not parked"), "{late:#}");
    let left = stage.finish().await;
    assert_nobody_paid_twice(&left);
    for job in [made, not_made] {
        let resumed = left.tokens.events.iter().find(|event| event.job == job && event.kind == EventKind::JobResumed);
        assert_eq!(resumed.unwrap().actor.as_deref(), Some("default"));
    }
}
