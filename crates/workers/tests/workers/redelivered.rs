//! A slip that lay in its partition when a worker came may have been begun by one that is gone: its step counts as
//! possibly done, until there is a definite answer.

use std::time::Duration;

use events::lane::turn_headers;
use events::wait::{RunningCall, Wait};
use events::{decode_event, slip_record};
use flow::event::{EventKind, JobStatus};
use serde_json::json;
use test_kit::{Answer, Receiver, eventually, read_topic};
use workers::Workers;

use crate::stage::{PATIENCE, Running, Stage, trace};

/// The first attempt is all there is, so whoever attempts it again has the last word.
const FLOW: &str = r#"
flow: shop
key: "{{ input.key }}"
steps:
  - id: charge
    idempotent: IDEMPOTENT
    http: { method: POST, url: "{{ env.CHARGE_URL }}/charges" }
    timeout: 60s
    retry: { attempts: 1, backoff: 1s..1s }
    compensate:
      http: { method: DELETE, url: "{{ env.REFUND_URL }}/charges/{{ step.idempotency_key }}" }
"#;

/// A worker charges and is killed before it hears that it did; then nobody can be reached there any more. Another
/// worker comes to the slip. Returns the door where charges are undone, and that worker.
async fn killed_while_charging(stage: &mut Stage) -> (Receiver, Running) {
    let (charges, refunds) = (Receiver::start().await, Receiver::start().await);
    charges.answer_with(|_| Answer::status(200).after(PATIENCE));
    stage.env.push(("CHARGE_URL".to_owned(), charges.url()));
    stage.env.push(("REFUND_URL".to_owned(), refunds.url()));
    let mut worker = stage.process("a", &[("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "2000")]);
    stage.submit(json!({ "key": "k" })).await;
    eventually(PATIENCE, "it is being charged", async || Some(()).filter(|()| charges.requests().len() == 1)).await;
    worker.kill9();
    drop(charges);
    let next = stage.work("a", Workers::builder().build());
    (refunds, next)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_worker_was_killed_is_undone_when_the_next_one_gets_no_answer() {
    let mut stage = Stage::new(&FLOW.replace("IDEMPOTENT", "true")).await;
    let (refunds, next) = killed_while_charging(&mut stage).await;
    let ends = stage.ends().await;
    assert_eq!(ends[0].status, JobStatus::Failed);
    next.stop().await;
    let undone = refunds.requests();
    assert_eq!(undone.len(), 1, "what may have been charged is refunded");
    let path = format!("/charges/{}%3Acharge%3A1", ends[0].job);
    assert_eq!((undone[0].method.as_str(), undone[0].uri.path()), ("DELETE", path.as_str()));
    let tokens = stage.tokens().await;
    let kinds: Vec<_> = tokens.events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["job.accepted", "step.failed", "job.compensating", "step.compensated", "job.failed"]);
}

/// The first call on its way that `waits` tells of.
async fn marked(stage: &Stage) -> Option<RunningCall> {
    let records = read_topic(&stage.bus.brokers, &stage.topics.waits()).await.unwrap();
    records.iter().find_map(|record| match stage.decode_wait(record) {
        Some(Wait::Running(call)) => Some(call),
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_must_not_be_repeated_is_marked_before_it_is_made_and_a_marked_slip_calls_nothing() {
    let mut stage = Stage::new(&FLOW.replace("IDEMPOTENT", "false")).await;
    let charges = Receiver::start().await;
    charges.answer_with(|_| Answer::status(200).after(PATIENCE));
    stage.env.push(("CHARGE_URL".to_owned(), charges.url()));
    let mut worker = stage.process("a", &[("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "2000")]);
    stage.submit(json!({ "key": "k" })).await;
    eventually(PATIENCE, "it is being charged", async || Some(()).filter(|()| charges.requests().len() == 1)).await;
    let call = marked(&stage).await.expect("the mark is committed before the call is made");
    worker.kill9();
    let RunningCall { hold, .. } = call;
    assert!(hold.slip.attempt_uncertain, "{:?}", hold.slip);
    let next = stage.work("a", Workers::builder().build());
    // As the orchestrator does once the worker is lost.
    let mut again = slip_record(&stage.topics, &stage.writers, &hold.queue, &hold.slip, &trace()).unwrap();
    again.headers.append(&turn_headers(&hold.slip.token(), 0));
    stage.send(again).await;
    let schemas = events::Schemas::new();
    schemas.insert_writers(&stage.writers);
    let parked = eventually(PATIENCE, "the job is parked", async || {
        let records = read_topic(&stage.bus.brokers, &stage.topics.events()).await.unwrap();
        let mut events = records.iter().map(|record| decode_event(&schemas, record.value.as_deref().unwrap()).unwrap());
        events.find(|event| event.kind == EventKind::JobParked)
    });
    let parked = parked.await;
    assert_eq!((parked.status, parked.step.as_deref()), (JobStatus::NeedsAttention, Some("charge")));
    assert_eq!(parked.data.unwrap()["code"], "outcome-unknown");
    next.stop().await;
    assert_eq!(charges.requests().len(), 1, "whether it was charged is for a person to find out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_must_not_be_repeated_is_not_made_before_its_mark_and_a_slip_without_it_is_called() {
    let mut stage = Stage::new(&FLOW.replace("IDEMPOTENT", "false")).await;
    let charges = Receiver::start().await;
    charges.answer_with(|_| Answer::status(200));
    stage.env.push(("CHARGE_URL".to_owned(), charges.url()));
    let timeout = ("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "2000");
    // Its first transaction is that of the mark.
    let mut worker = stage.process("a", &[timeout, ("MEANWHILE_STOP_AT", "workers.before-commit:1")]);
    stage.submit(json!({ "key": "k" })).await;
    let status = worker.wait_for_exit(PATIENCE).await.unwrap();
    assert!(!status.success() && charges.requests().is_empty(), "{status}: {:?}", charges.requests());
    let next = stage.work("a", Workers::builder().build());
    eventually(PATIENCE, "it is charged", async || Some(()).filter(|()| charges.requests().len() == 1)).await;
    assert!(marked(&stage).await.is_some());
    next.stop().await;
    assert_eq!(charges.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_outlives_its_own_deadline_fails_and_is_undone() {
    let flow =
        FLOW.replace("IDEMPOTENT", "true").replace("    timeout: 60s\n", "    timeout: 60s\n    deadline: 700ms\n");
    let mut stage = Stage::new(&flow.replace("attempts: 1, backoff: 1s..1s", "attempts: 99, backoff: 1ms..1ms")).await;
    let (charges, refunds) = (Receiver::start().await, Receiver::start().await);
    charges.answer_with(|_| Answer::status(503).after(Duration::from_millis(20)));
    stage.env.push(("CHARGE_URL".to_owned(), charges.url()));
    stage.env.push(("REFUND_URL".to_owned(), refunds.url()));
    let worker = stage.work("a", Workers::builder().build());
    stage.submit(json!({ "key": "k" })).await;
    let ends = stage.ends().await;
    worker.stop().await;
    let failure = ends[0].data.as_ref().unwrap();
    assert_eq!((&failure["code"], &failure["step"]), (&json!("deadline-exceeded"), &json!("charge")));
    let (tried, undone) = (charges.requests().len(), refunds.requests().len());
    assert!((1..99).contains(&tried) && undone == 1, "{tried} attempts, {undone} undos");
}
