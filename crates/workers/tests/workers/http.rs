//! HTTP steps: what is sent, and what its answers lead to.

use std::time::Duration;

use events::wait::Wait;
use flow::event::{EventKind, JobStatus};
use serde_json::json;
use test_kit::{Answer, Receiver, eventually, read_topic};
use workers::Workers;

use crate::stage::{PATIENCE, Stage};

const FLOW: &str = r#"
flow: shop
steps:
  - id: reserve
    http: { method: POST, url: "{{ env.SHOP_URL }}/reserve", body: { sku: "{{ input.sku }}" } }
    timeout: 300ms
    retry: { attempts: 3, backoff: 1ms..20ms }
    compensate:
      http: { method: DELETE, url: "{{ env.SHOP_URL }}/reserve/{{ step.idempotency_key }}" }
  - id: charge
    http: { method: POST, url: "{{ env.SHOP_URL }}/charge", headers: { x-note: "{{ input.sku }}" } }
    timeout: 300ms
    retry: { attempts: 3, backoff: 1ms..20ms }
    compensate:
      http: { method: POST, url: "{{ env.SHOP_URL }}/refund" }
"#;

const FLOW_OF_LONG_CALLS: &str = r#"
flow: shop
steps:
  - id: reserve
    http: { method: POST, url: "{{ env.SHOP_URL }}/reserve" }
    compensate:
      http: { method: DELETE, url: "{{ env.SHOP_URL }}/reserve/{{ step.idempotency_key }}" }
  - id: charge
    http: { method: POST, url: "{{ env.SHOP_URL }}/charge" }
"#;

async fn shop() -> (Stage, Receiver) {
    let receiver = Receiver::start().await;
    let mut stage = Stage::new(FLOW).await;
    stage.env.push(("SHOP_URL".to_owned(), receiver.url()));
    (stage, receiver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_sends_its_key_its_trace_and_its_correlation_id() {
    let (stage, receiver) = shop().await;
    let running = stage.work("a", Workers::builder().build());
    let job = stage.submit(json!({ "sku": "tea" })).await;
    assert_eq!(stage.ends().await[0].status, JobStatus::Succeeded);
    running.stop().await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!((requests[0].method.as_str(), requests[0].uri.path()), ("POST", "/reserve"));
    assert_eq!(requests[0].header("idempotency-key"), format!("{job}:reserve:1"));
    assert_eq!(requests[0].header("content-type"), "application/json");
    assert_eq!(requests[0].json(), json!({ "sku": "tea" }));
    assert_eq!(requests[0].header("x-correlation-id"), format!("correlation of {job}"));
    assert_eq!(requests[0].header("baggage"), format!("correlation_id=correlation%20of%20{job}"));
    assert_eq!(requests[1].header("x-note"), "tea");
    let traces: Vec<&str> = requests.iter().map(|request| request.header("traceparent")).collect();
    assert!(traces.iter().all(|trace| trace.starts_with("00-00000000000000000000000000000abc-")), "{traces:?}");
    assert_ne!(traces[0], traces[1]);
    stage.tokens().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_without_an_answer_is_undone_with_the_ones_before_it_in_reverse() {
    let (stage, receiver) = shop().await;
    receiver.answer_with(|request| match request.uri.path() {
        "/charge" => Answer::json(200, &json!({})).after(Duration::from_secs(2)),
        _ => Answer::json(200, &json!({})),
    });
    let running = stage.work("a", Workers::builder().build());
    let job = stage.submit(json!({ "sku": "tea" })).await;
    let ends = stage.ends().await;
    assert_eq!(ends[0].status, JobStatus::Failed);
    assert_eq!(ends[0].data.as_ref().unwrap()["code"], "timed-out");
    running.stop().await;
    let calls: Vec<String> =
        receiver.requests().iter().map(|request| format!("{} {}", request.method, request.uri.path())).collect();
    let undo = format!("DELETE /reserve/{job}:reserve:1");
    let expected =
        ["POST /reserve", "POST /charge", "POST /charge", "POST /charge", "POST /refund", &undo.replace(':', "%3A")];
    let decoded: Vec<String> = calls.iter().map(|call| call.replace(':', "%3A")).collect();
    assert_eq!(decoded, expected);
    let tokens = stage.tokens().await;
    let compensated = tokens.events.iter().filter(|event| event.kind == EventKind::StepCompensated);
    let steps: Vec<&str> = compensated.filter_map(|event| event.step.as_deref()).collect();
    assert_eq!(steps, ["charge", "reserve"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_that_no_record_can_carry_fails_its_step_and_is_undone() {
    let (stage, receiver) = shop().await;
    let large = "x".repeat(500_000);
    receiver.answer_with(move |_| Answer::json(200, &json!({ "large": large })));
    let running = stage.work("a", Workers::builder().build());
    let small = stage.submit(json!({ "sku": "tea" })).await;
    let large = stage.submit(json!({ "sku": "y".repeat(600_000) })).await;
    let ends = stage.ends().await;
    let end = |job| ends.iter().find(|end| end.job == job).unwrap();
    assert_eq!(end(small).status, JobStatus::Succeeded, "one output fits");
    let failure = end(large).data.as_ref().unwrap();
    assert_eq!((&failure["code"], &failure["step"]), (&json!("too-large"), &json!("reserve")));
    let undone: Vec<String> =
        receiver.requests().iter().filter(|r| r.method == "DELETE").map(|r| r.uri.to_string()).collect();
    assert_eq!(undone.len(), 1, "it was done, so it is undone: {undone:?}");
    running.stop().await;
    assert_eq!(stage.tokens().await.dead_letters, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_cannot_be_reached_was_not_done_and_an_answer_over_the_limit_was() {
    let (mut stage, receiver) = shop().await;
    receiver.answer_with(|_| Answer::json(200, &json!({})).header("connection", "close"));
    let running = stage.work("a", Workers::builder().build());
    // What lay in the partition before the worker came may have been begun by another: this one brings the worker here.
    stage.submit(json!({ "sku": "tea" })).await;
    stage.ends().await;
    drop(receiver);
    let unreachable = stage.submit(json!({ "sku": "tea" })).await;
    let ends = stage.ends().await;
    let code = |job| ends.iter().find(|end| end.job == job).unwrap().data.as_ref().unwrap()["code"].clone();
    assert_eq!(code(unreachable), "connection-failed");
    running.stop().await;

    let receiver = Receiver::start().await;
    stage.env = vec![("SHOP_URL".to_owned(), receiver.url())];
    receiver.answer_with(|request| match request.method.as_str() {
        "DELETE" => Answer::status(404),
        _ => Answer::json(200, &json!({ "large": "x".repeat(600_000) })),
    });
    let running = stage.work("a", Workers::builder().build());
    let over = stage.submit(json!({ "sku": "tea" })).await;
    let ends = stage.ends().await;
    assert_eq!(ends.iter().find(|end| end.job == over).unwrap().data.as_ref().unwrap()["code"], "too-large");
    running.stop().await;
    let tokens = stage.tokens().await;
    let undone = |job| {
        let compensated = tokens.events.iter().filter(|event| event.kind == EventKind::StepCompensated);
        compensated.filter(|event| event.job == job).count()
    };
    assert_eq!((undone(unreachable), undone(over)), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_of_a_long_call_that_no_slip_can_carry_fails_its_step_too() {
    let receiver = Receiver::start().await;
    let mut stage = Stage::new(FLOW_OF_LONG_CALLS).await;
    stage.env.push(("SHOP_URL".to_owned(), receiver.url()));
    let large = "x".repeat(500_000);
    receiver.answer_with(move |_| Answer::json(200, &json!({ "large": large })).after(Duration::from_secs(1)));
    let _worker = stage.process("a", &[("MEANWHILE__WORKERS__DETACH_AFTER_MS", "100")]);
    stage.submit(json!({ "sku": "y".repeat(600_000) })).await;
    // Its outcome is in the hands of the orchestrator, which this stage does not have.
    let outcome = eventually(PATIENCE, "the outcome of the call", async || {
        let waits = read_topic(&stage.bus.brokers, &stage.topics.waits()).await.unwrap();
        waits.iter().find_map(|record| match stage.decode_wait(record) {
            Some(Wait::Outcome(outcome)) => Some(outcome),
            _ => None,
        })
    });
    let outcome = outcome.await;
    let sizes: Vec<usize> = outcome.records.iter().map(bus::Record::size_bytes).collect();
    assert!(sizes.iter().all(|size| *size < 1_048_576), "each fits into its topic: {sizes:?}");
    let kinds: Vec<_> = outcome.records.iter().map(|record| record.header("ce_type")).collect();
    assert!(kinds.contains(&Some(b"step.failed")), "{kinds:?}");
}
