//! A slip that lay in its partition when a worker came may have been begun by one that is gone: its step counts as
//! possibly done, until there is a definite answer.

use events::decode_event;
use flow::event::{EventKind, JobStatus};
use serde_json::json;
use test_kit::{Answer, Receiver, eventually, read_topic};
use workers::Workers;

use crate::stage::{PATIENCE, Running, Stage};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_must_not_be_repeated_is_parked_when_its_worker_was_killed_and_the_next_one_gets_no_answer() {
    let mut stage = Stage::new(&FLOW.replace("IDEMPOTENT", "false")).await;
    let (refunds, next) = killed_while_charging(&mut stage).await;
    let schemas = events::Schemas::new();
    schemas.insert_writers(&stage.writers);
    let parked = eventually(PATIENCE, "the job is parked", async || {
        let records = read_topic(&stage.bus.brokers, &stage.topics.events()).await.unwrap();
        let mut events = records.iter().map(|record| decode_event(&schemas, record.value.as_deref().unwrap()).unwrap());
        events.find(|event| event.kind == EventKind::JobParked)
    });
    let parked = parked.await;
    assert_eq!((parked.status, parked.step.as_deref()), (JobStatus::NeedsAttention, Some("charge")));
    next.stop().await;
    assert_eq!(refunds.requests().len(), 0, "whether it was charged is for a person to find out");
    let tokens = stage.tokens().await;
    assert!(tokens.holds[0].slip.attempt_uncertain && tokens.holds[0].slip.visit == 1, "{:?}", tokens.holds);
}
