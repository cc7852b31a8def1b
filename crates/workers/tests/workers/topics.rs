//! A topic that is gone stops only what was to go there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::admin::Admin;
use events::slip_record;
use events::wait::Wait;
use flow::slip::{Hold, HoldReason};
use serde_json::json;
use test_kit::{eventually, read_topic};
use tokio::sync::watch;
use workers::{NativeError, Workers};

use crate::stage::{PATIENCE, Stage, trace};

const GOING_AWAY: &str = r#"
flow: away
key: "{{ input.key }}"
steps:
  - { id: one, native: work, timeout: 10m }
  - { id: two, native: work, queue: gone }
"#;

const STAYING: &str = r#"
flow: here
key: "{{ input.key }}"
steps:
  - { id: one, native: work, timeout: 10m }
  - { id: two, native: work }
"#;

const JOBS: usize = 6;
/// The pause between looks for new holds.
const RELEASE_INTERVAL: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_whose_topic_is_deleted_stops_only_its_own_slips_until_it_is_there_again() {
    let (away, mut here) = (Stage::new(GOING_AWAY).await, Stage::new(STAYING).await);
    here.topics = away.topics.clone();
    here.publish(&here.definition).await;
    let calls: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let gate = watch::Sender::new(true);
    let (counted, opened) = (Arc::clone(&calls), gate.subscribe());
    let workers = Workers::builder().native("work", move |call| {
        *counted.lock().unwrap().entry(call.idempotency_key.clone()).or_default() += 1;
        let mut opened = opened.clone();
        async move {
            opened.wait_for(|open| *open).await.unwrap();
            Ok::<_, NativeError>(json!({}))
        }
    });
    let mut settings = away.settings("a");
    // Nothing here applies what comes of steps that have left.
    settings.config.detach_after_ms = 3_600_000;
    let running = away.work_with(settings, workers.build());
    away.submit(json!({ "key": "first" })).await;
    away.ends().await;
    // From now on the worker believes that the topic is there.
    gate.send_replace(false);
    for number in 0..JOBS {
        away.submit(json!({ "key": format!("k{number}") })).await;
        here.submit(json!({ "key": format!("k{number}") })).await;
    }
    let begun = async || Some(()).filter(|()| calls.lock().unwrap().len() == 2 + 2 * JOBS);
    eventually(PATIENCE, "all first steps are under way", begun).await;
    let (admin, topic) = (Admin::new(&away.bus).unwrap(), away.topics.steps("gone"));
    admin.delete_topic(&topic).await.unwrap();
    eventually(PATIENCE, "the topic is gone", async || admin.topic_exists(&topic).await.ok().filter(|there| !there))
        .await;
    gate.send_replace(true);
    here.ends().await;
    let resting = async || Some(holds(&away).await).filter(|holds| holds.len() == JOBS);
    for hold in eventually(PATIENCE, "the others rest", resting).await.into_values() {
        assert_eq!((hold.queue.as_str(), hold.reason), ("default", HoldReason::MissingStep), "it looks from there");
    }
    let group = away.topics.workers_group();
    assert!(admin.ensure_queue(&away.topics, "gone", &group, None).await.unwrap());
    tokio::select! {
        _ = away.ends() => (),
        () = release(&away) => (),
    }
    running.stop().await;
    let calls = calls.lock().unwrap();
    assert!(calls.len() == 2 + 4 * JOBS && calls.values().all(|count| *count == 1), "each step once: {calls:?}");
}

/// The holds of a stage by the place of their records.
async fn holds(stage: &Stage) -> BTreeMap<(i32, i64), Hold> {
    let waits = read_topic(&stage.bus.brokers, &stage.topics.waits()).await.unwrap();
    let holds = waits.iter().filter_map(|record| match stage.decode_wait(record) {
        Some(Wait::Hold(hold)) => Some(((record.partition, record.offset), hold)),
        _ => None,
    });
    holds.collect()
}

/// What the orchestrator does with each hold. A slip may rest again: for two seconds after a look the worker takes the
/// topic for missing.
async fn release(stage: &Stage) {
    let mut released = BTreeSet::new();
    loop {
        for (place, hold) in holds(stage).await {
            if released.insert(place) {
                let slip = slip_record(&stage.topics, &stage.writers, &hold.queue, &hold.slip, &trace()).unwrap();
                stage.send(slip).await;
            }
        }
        tokio::time::sleep(RELEASE_INTERVAL).await;
    }
}
