//! Jobs on their way: through all steps, in key order, between workers that come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flow::event::JobStatus;
use serde_json::{Value, json};
use workers::{NativeCall, NativeError, Workers};

use crate::stage::Stage;

const THREE_STEPS: &str = r#"
flow: three
key: "{{ input.key }}"
steps:
  - { id: one, native: work, retry: { attempts: 5, backoff: 1ms..20ms } }
  - { id: two, native: work, queue: other, retry: { attempts: 5, backoff: 1ms..20ms } }
  - { id: three, native: work, retry: { attempts: 5, backoff: 1ms..20ms } }
result: { last: "{{ steps.three.output.step }}" }
"#;

fn workers<F: Future<Output = Result<Value, NativeError>> + Send + 'static>(
    work: impl Fn(NativeCall) -> F + Send + Sync + 'static,
) -> Workers {
    Workers::builder().native("work", work).build()
}

/// A key, and the step or queue in which its slips run one at a time.
type Lane = (String, String);

/// A duration and a fate that follow from the call, so that a run can be repeated.
fn chance(call: &NativeCall) -> u64 {
    let text = format!("{}#{}", call.idempotency_key, call.attempt);
    text.bytes().fold(7_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 33
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_through_three_steps_and_two_queues_under_one_trace() {
    let stage = Stage::new(THREE_STEPS).await;
    let traces = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&traces);
    let running = stage.work(
        "a",
        workers(move |call| {
            seen.lock().unwrap().insert(call.traceparent.clone());
            async move { Ok(json!({ "step": call.step, "correlation": call.correlation_id })) }
        }),
    );
    let job = stage.submit(json!({ "key": "k" })).await;
    let ends = stage.ends().await;
    assert_eq!((ends[0].job, ends[0].status), (job, JobStatus::Succeeded));
    assert_eq!(ends[0].data, Some(json!({ "last": "three" })));
    assert!(running.readiness.is_ready());
    running.stop().await;
    let tokens = stage.tokens().await;
    assert_eq!((tokens.slips.len(), tokens.holds.len(), tokens.dead_letters), (3, 0, 0));
    let traces = traces.lock().unwrap();
    assert_eq!(traces.len(), 3, "each attempt is a span of its own");
    assert!(traces.iter().all(|trace| trace.starts_with("00-00000000000000000000000000000abc-")), "{traces:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slips_of_a_key_run_one_at_a_time_and_begin_in_the_order_of_their_submits() {
    const KEYS: usize = 20;
    const JOBS: usize = 500;
    let stage = Stage::new(THREE_STEPS).await;
    let begun: Arc<Mutex<BTreeMap<Lane, Vec<u64>>>> = Arc::default();
    let busy: Arc<Mutex<BTreeSet<Lane>>> = Arc::default();
    let (begun_in_step, busy_in_step) = (Arc::clone(&begun), Arc::clone(&busy));
    let work = move |call: NativeCall| {
        let lane = (call.input["key"].as_str().unwrap().to_owned(), call.step.clone());
        // Steps one and three share a queue, so a lane is free for step three only between two of step one.
        let queue = (lane.0.clone(), if lane.1 == "two" { "other" } else { "default" }.to_owned());
        assert!(busy_in_step.lock().unwrap().insert(queue.clone()), "two slips of {queue:?} at once");
        if call.attempt == 1 {
            begun_in_step.lock().unwrap().entry(lane).or_default().push(call.input["number"].as_u64().unwrap());
        }
        let (busy, chance) = (Arc::clone(&busy_in_step), chance(&call));
        async move {
            tokio::time::sleep(Duration::from_millis(chance % 8)).await;
            busy.lock().unwrap().remove(&queue);
            if chance.is_multiple_of(5) {
                Err(NativeError::retryable("not yet"))
            } else {
                Ok(json!({ "step": call.step }))
            }
        }
    };
    for number in 0..JOBS {
        stage.submit(json!({ "key": format!("k{}", number % KEYS), "number": number })).await;
    }
    let running = stage.work("a", workers(work));
    assert_eq!(stage.ends().await.len(), JOBS);
    running.stop().await;
    stage.tokens().await;
    for ((key, step), numbers) in begun.lock().unwrap().iter() {
        assert!(numbers.is_sorted() && numbers.len() == JOBS / KEYS, "{key} {step}: {numbers:?}");
    }
}
