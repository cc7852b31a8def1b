//! A worker that was stopped and wakes makes no further attempt of a long call, which may be another one's by then.

use std::time::Duration;

use events::wait::Wait;
use serde_json::json;
use test_kit::{Answer, Receiver, eventually, read_topic};

use crate::stage::{PATIENCE, Stage};

const LONG: &str = r#"
flow: long
key: "{{ input.key }}"
steps:
  - id: one
    http: { method: POST, url: "{{ env.SHOP_URL }}" }
    timeout: 60s
    retry: { attempts: 100, backoff: 1ms..10ms }
"#;

async fn waits(stage: &Stage) -> Vec<Wait> {
    let records = read_topic(&stage.bus.brokers, &stage.topics.waits()).await.unwrap();
    records.iter().filter_map(|record| stage.decode_wait(record)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_stopped_hands_a_long_call_over_rather_than_make_another_attempt() {
    let receiver = Receiver::start().await;
    receiver.answer_with(|_| Answer::status(503).after(Duration::from_secs(2)));
    let mut stage = Stage::new(LONG).await;
    stage.env.push(("SHOP_URL".to_owned(), receiver.url()));
    let limits = [("MEANWHILE__WORKERS__DETACH_AFTER_MS", "200"), ("MEANWHILE__WORKERS__LEASE_MS", "8000")];
    let worker = stage.process("a", &limits);
    stage.submit(json!({ "key": "k" })).await;
    let apart = eventually(PATIENCE, "the call has left its partition", async || {
        waits(&stage).await.into_iter().find_map(|wait| match wait {
            Wait::Running(call) => Some(call.hold.slip.token()),
            _ => None,
        })
    });
    let token = apart.await;
    worker.pause();
    let calls = receiver.requests().len();
    // Longer than the part of its lease after which a process counts as stopped.
    tokio::time::sleep(Duration::from_secs(3)).await;
    worker.resume();
    let over = eventually(PATIENCE, "the call is handed over, or made again", async || {
        let outcome = waits(&stage).await.into_iter().find_map(|wait| match wait {
            Wait::Outcome(outcome) => Some(outcome),
            _ => None,
        });
        (outcome.is_some() || receiver.requests().len() > calls).then_some(outcome)
    });
    let outcome = over.await.expect("another attempt was made");
    assert_eq!((outcome.token, outcome.records.len()), (token, 0), "the keeper of the hold sends it on");
    assert_eq!(receiver.requests().len(), calls);
}
