//! Quick jobs beside the long ones: as many as the system takes, or at a steady rate.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flow::id::JobId;
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::stage::Stage;

/// Quick jobs that are kept in flight.
const IN_FLIGHT: usize = 4_000;
/// So many are sent at once.
const BATCH: usize = 500;

/// Keeps quick jobs in flight for as long as `go_on` says so; returns how many there were, all of which have ended.
pub(crate) async fn saturate(stage: &Stage, besides: &[JobId], go_on: impl Fn() -> bool) -> usize {
    let mut sent = 0;
    while go_on() {
        if sent < stage.watch.ended(besides) + IN_FLIGHT {
            let keys = (sent..sent + BATCH).map(|number| format!("quick-{number}"));
            stage.quick(keys).await;
            sent += BATCH;
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    stage.watch.until_ended(sent, besides).await;
    sent
}

/// Submits quick jobs at a steady rate, whatever becomes of those before; returns how long each took from when it was
/// due until its final event was read.
pub(crate) async fn at_rate(stage: &mut Stage, rate: u32, time: Duration) -> Vec<Duration> {
    let client = stage.system.client();
    let due_of = Arc::new(Mutex::new(HashMap::<JobId, Instant>::new()));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut submits = JoinSet::new();
    for _ in 0..(time.as_secs() as u32 * rate) {
        let due = ticks.tick().await.into_std();
        let (client, due_of) = (client.clone(), Arc::clone(&due_of));
        submits.spawn(async move {
            let key = uuid::Uuid::now_v7().to_string();
            let input = json!({ "key": key, "path": "quick" });
            let job = test_kit::submit(&client, "call", &key, &input).await.unwrap();
            due_of.lock().insert(job, due);
        });
    }
    submits.join_all().await;
    let due_of = std::mem::take(&mut *due_of.lock());
    stage.system.note_accepted(due_of.keys().copied());
    stage.watch.until_all_ended(due_of.keys()).await;
    let ends = &stage.watch.seen().ends;
    due_of.iter().map(|(job, due)| ends[job].0.duration_since(*due)).collect()
}
