//! The ways in which a job can end, one job each.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use client::Verdict;
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::id::JobId;
use flow::slip::Phase;
use serde_json::{Value, json};
use shop::{EntryState, PerService, State};
use test_kit::{Answer, Receiver};

use crate::client::{order, small_order};
use crate::stage::{Left, PATIENCE, Stage};
use crate::turn::beside_others;

fn kinds(left: &Left, job: JobId) -> Vec<&str> {
    let events = left.tokens.events.iter().filter(|event| event.job == job);
    events.map(|event| event.kind.as_str()).collect()
}

fn standing(states: &PerService<State>, job: JobId) -> [bool; 3] {
    let order = job.to_string();
    [&states.inventory, &states.payment, &states.shipping]
        .map(|state| state.entries.iter().any(|entry| entry.order == order && entry.state == EntryState::Done))
}

/// Whether it was ever done, undone or not.
fn done(state: &State, job: JobId) -> bool {
    state.entries.iter().any(|entry| entry.order == job.to_string())
}

fn calls(state: &State, job: JobId, step: &str) -> u32 {
    state.calls.get(&format!("{job}:{step}:1")).map_or(0, |calls| calls.create)
}

fn holds(left: &Left, job: JobId) -> usize {
    left.tokens.holds.iter().filter(|hold| hold.slip.job == job).count()
}

fn events_of(left: &Left, job: JobId, kind: EventKind) -> Vec<&JobEvent> {
    left.tokens.events.iter().filter(|event| event.job == job && event.kind == kind).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_without_trouble_succeeds_with_its_result() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let job = stage.submit("order", &order("c-1", json!({}))).await;
    let end = stage.end_of(job).await;
    assert_eq!(end.status, JobStatus::Succeeded);
    let status = stage.status_at_end(job).await;
    assert_eq!(status["status"], "succeeded");
    assert_eq!(status["progress"], json!({ "done": 3, "total": 3, "percent": 100 }));
    assert_eq!(status["result"]["tracking"], "TRACK-000001");
    let left = stage.finish().await;
    assert_eq!(
        kinds(&left, job),
        ["job.accepted", "step.succeeded", "step.succeeded", "step.succeeded", "job.succeeded"]
    );
    assert_eq!(standing(&left.shop.states(), job), [true, true, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declined_card_releases_the_stock_and_ships_nothing() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let job = stage.submit("order", &order("c-1", json!({ "payment": "declined" }))).await;
    assert_eq!(stage.end_of(job).await.status, JobStatus::Failed);
    let status = stage.status_at_end(job).await;
    assert_eq!((&status["error"]["step"], &status["error"]["status"]), (&json!("charge"), &json!(402)));
    assert_eq!(status["compensation"]["undone"], json!(["reserve"]));
    let left = stage.finish().await;
    assert_eq!(
        kinds(&left, job),
        ["job.accepted", "step.succeeded", "step.failed", "job.compensating", "step.compensated", "job.failed"]
    );
    let states = left.shop.states();
    assert_eq!(standing(&states, job), [false, false, false]);
    assert!(done(&states.inventory, job) && !done(&states.shipping, job));
    assert_eq!(calls(&states.payment, job, "charge"), 1, "a declined card is not charged again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_whose_answer_was_lost_is_refunded() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let job = stage.submit("patient", &small_order("c-1", json!({ "payment": "timeout_after_effect:5000" }))).await;
    assert_eq!(stage.end_of(job).await.status, JobStatus::Failed);
    let left = stage.finish().await;
    let states = left.shop.states();
    assert!(done(&states.payment, job), "the charge took effect");
    assert_eq!(standing(&states, job), [false, false, false]);
    assert_eq!(calls(&states.payment, job, "charge"), 3, "every attempt that the policy allows, under one key");
    let undone = events_of(&left, job, EventKind::StepCompensated);
    let undone: Vec<_> = undone.iter().map(|event| event.step.as_deref().unwrap_or("")).collect();
    assert_eq!(undone, ["charge", "reserve"], "in reverse, the uncertain one too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flaky_service_is_retried_in_process_and_in_holds() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    // 200 ms and 400 ms at most: below the second from which on it is a hold.
    let in_process = stage.submit("order", &order("c-1", json!({ "payment": "flaky:2" }))).await;
    // The service itself asks for two seconds.
    let held = stage.submit("order", &order("c-2", json!({ "payment": "busy:2" }))).await;
    let mut patient = vec![];
    for customer in 0..10 {
        let input = small_order(&format!("c-{customer}"), json!({ "inventory": "flaky:3", "shipping": "busy:1" }));
        patient.push(stage.submit("patient", &input).await);
    }
    let ends = stage.ends_of(patient.iter().copied().chain([in_process, held])).await;
    assert!(ends.values().all(|end| end.status == JobStatus::Succeeded), "{ends:?}");
    let left = stage.finish().await;
    let states = left.shop.states();
    assert_eq!((holds(&left, in_process), calls(&states.payment, in_process, "charge")), (0, 3));
    assert_eq!((holds(&left, held), calls(&states.payment, held, "charge")), (1, 2));
    assert_eq!(events_of(&left, held, EventKind::StepRetrying).len(), 1);
    assert!(patient.iter().all(|job| calls(&states.inventory, *job, "reserve") == 4));
    let held_backoffs: usize = patient.iter().map(|job| holds(&left, *job)).sum();
    assert!(held_backoffs > patient.len(), "{held_backoffs} holds of {} jobs", patient.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_undo_fails_for_good_is_parked_until_somebody_says_that_it_was_undone_by_hand() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let input = small_order("c-1", json!({ "inventory": "undo_error", "payment": "declined" }));
    let job = stage.submit("patient", &input).await;
    let parked = test_kit::eventually(PATIENCE, "the job is parked", async || {
        let status = stage.system.status(job).await.unwrap();
        (status["status"] == "needs_attention").then_some(status)
    });
    let status: Value = parked.await;
    assert_eq!(status["compensation"]["stuck"], "reserve");
    let (client, id) = (stage.system.client(), job.to_string());
    // A cancel changes nothing, and leaves none.
    client.cancel(&id, Some("too late")).await.unwrap();
    let status = stage.system.status(job).await.unwrap();
    assert_eq!((&status["status"], &status["cancel"]), (&json!("needs_attention"), &Value::Null));
    let by_hand = Verdict::Undone("the shelf was counted".to_owned());
    test_kit::eventually(PATIENCE, "its token has come to rest", async || client.rule(&id, &by_hand).await.ok()).await;
    let ends = stage.system.wait_until_ended([job], PATIENCE).await.unwrap();
    assert_eq!(ends[&job].status, JobStatus::Failed);
    let status = stage.system.status(job).await.unwrap();
    assert_eq!(status["compensation"], json!({ "undone": ["reserve"], "stuck": null }));
    assert_eq!(
        (&status["steps"][0]["status"], &status["steps"][0]["decided_by"]),
        (&json!("compensated"), &json!("default"))
    );
    let tokens = stage.system.finish(PATIENCE).await.unwrap();
    let told: Vec<&JobEvent> = tokens.events.iter().filter(|event| event.actor.is_some()).collect();
    let kinds: Vec<EventKind> = told.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::JobResumed, EventKind::StepCompensated]);
    let said = json!({ "outcome": "undone", "reason": "the shelf was counted" });
    assert!(told.iter().all(|event| event.data.as_ref() == Some(&said)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_that_takes_effect_after_its_undo_found_nothing_is_undone_once_more() {
    let (_turn, payment) = (beside_others().await, Receiver::start().await);
    // Charges get no answer in time. They take effect once the first undo has found nothing.
    let charged = Arc::new(AtomicBool::new(false));
    let stands = Arc::clone(&charged);
    payment.answer_with(move |request| match request.method.as_str() {
        "POST" => Answer::status(200).after(PATIENCE),
        _ if request.header("idempotency-key").ends_with(":undo") => {
            stands.store(true, Relaxed);
            Answer::status(404)
        }
        _ => Answer::status(if stands.swap(false, Relaxed) { 204 } else { 404 }),
    });
    let mut stage = Stage::start_with(|builder| builder.variable("PAYMENT_URL", payment.url())).await;
    let job = stage.submit("patient", &small_order("c-1", json!({}))).await;
    let end = stage.end_of(job).await;
    let undos: Vec<_> = payment.requests().into_iter().filter(|request| request.method == "DELETE").collect();
    let keys: Vec<_> = undos.iter().map(|request| request.header("idempotency-key")).collect();
    let paths: BTreeSet<_> = undos.iter().map(|request| request.uri.path()).collect();
    assert_eq!(keys, [format!("{job}:charge:1:undo"), format!("{job}:charge:1:undo:2")]);
    assert_eq!((end.status, charged.load(Relaxed), paths.len()), (JobStatus::Failed, false, 1));
    let status = stage.status_at_end(job).await;
    assert_eq!(status["compensation"], json!({ "undone": ["charge", "reserve"], "stuck": null }));
    let left = stage.finish().await;
    let back = left.tokens.events.iter().filter(|event| event.job == job && event.phase == Phase::Undo);
    let back: Vec<_> = back.map(|event| event.kind.as_str()).collect();
    let expected = ["job.compensating", "step.retrying", "step.compensated", "step.compensated", "job.failed"];
    assert_eq!(back, expected);
    let told = events_of(&left, job, EventKind::StepRetrying);
    let told = told.iter().find(|event| event.phase == Phase::Undo).unwrap();
    assert_eq!(
        (told.next_attempt_after_ms, &told.data.as_ref().unwrap()["code"]),
        (Some(1_000), &json!("nothing-to-undo"))
    );
}
