//! What is counted of steps.

use events::headers::Headers;
use std::time::Duration;

use flow::event::JobStatus;
use serde_json::json;
use test_kit::{eventually, measure, metric, prefix};
use workers::{NativeError, Workers};

use crate::stage::{PATIENCE, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_and_retries_are_counted_by_flow_step_and_outcome_from_zero_on() {
    measure();
    // Metrics are this process's, other tests' too: a flow that is nobody else's.
    let name = prefix();
    let flow = format!(
        "flow: {name}\nsteps:\n  - {{ id: flaky, native: work, retry: {{ attempts: 3, backoff: 1ms..2ms }} }}\n  \
         - {{ id: busy, native: work, retry: {{ attempts: 2, backoff: 1ms..2ms }} }}\n"
    );
    let stage = Stage::new(&flow).await;
    let work = |call: workers::NativeCall| async move {
        match (call.step.as_str(), call.attempt) {
            ("flaky", 1 | 2) => Err(NativeError::retryable("not yet")),
            // Longer than a worker waits: the slip goes to rest, and nobody here sends it on.
            ("busy", _) if call.input["busy"] == true => {
                Err(NativeError::retryable("later").retry_after(Duration::from_secs(60)))
            }
            ("busy", _) => Err(NativeError::permanent("no")),
            _ => Ok(json!({})),
        }
    };
    let running = stage.work("a", Workers::builder().native("work", work).build());
    let steps = |step: &str, outcome: &str| {
        let labels = format!("flow=\"{name}\",step=\"{step}\",phase=\"forward\",outcome=\"{outcome}\"");
        metric(&format!("meanwhile_steps_total{{{labels}}}"))
    };
    let retries = |step: &str, after: &str| {
        let labels = format!("flow=\"{name}\",step=\"{step}\",phase=\"forward\",after=\"{after}\"");
        metric(&format!("meanwhile_step_retries_total{{{labels}}}"))
    };
    stage.submit(json!({})).await;
    assert_eq!(stage.ends().await[0].status, JobStatus::Failed);
    assert_eq!((steps("flaky", "failed"), steps("flaky", "succeeded")), (Some(2.0), Some(1.0)));
    assert_eq!((steps("flaky", "cancelled"), steps("busy", "refused")), (Some(0.0), Some(1.0)));
    assert_eq!((retries("flaky", "wait"), retries("flaky", "hold")), (Some(2.0), Some(0.0)));
    let seconds = format!("meanwhile_step_seconds_count{{flow=\"{name}\",step=\"flaky\",phase=\"forward\"}}");
    assert_eq!(metric(&seconds), Some(3.0));

    stage.submit(json!({ "busy": true })).await;
    eventually(PATIENCE, "the slip goes to rest", async || (retries("busy", "hold") == Some(1.0)).then_some(())).await;
    assert_eq!((steps("busy", "failed"), retries("busy", "wait")), (Some(1.0), Some(0.0)));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_counted_with_its_class() {
    measure();
    let series = "meanwhile_dead_letters_total{role=\"workers\",class=\"unreadable\"}";
    let stage = Stage::new("flow: one\nsteps:\n  - { id: one, native: nothing }\n").await;
    let before = metric(series).unwrap_or(0.0);
    let running = stage.work("a", Workers::builder().build());
    let topic = stage.topics.steps("default");
    stage
        .send(bus::Record {
            topic,
            key: Some(b"k".to_vec()),
            value: Some(b"no slip".to_vec()),
            headers: Headers::default(),
        })
        .await;
    eventually(PATIENCE, "a dead letter", async || metric(series).filter(|letters| *letters > before)).await;
    running.stop().await;
}
