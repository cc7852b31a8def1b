//! Jobs that somebody wants cancelled: no further attempt begins, a call under way is broken off where its step says
//! so, and what was done, or may have been, is undone.

use std::sync::{Arc, Mutex};

use events::cancel::Cancel;
use events::{cancel_record, cancel_tombstone, release, slip_record};
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::id::JobId;
use flow::slip::ReleasedBy;
use serde_json::json;
use test_kit::eventually;
use tokio::sync::Notify;
use workers::{NativeCall, Workers};

use crate::stage::{PATIENCE, Stage, trace};

const TWO_STEPS: &str = r#"
flow: two
steps:
  - { id: one, native: work, timeout: 60s, CANCEL, compensate: { native: work } }
  - { id: two, native: work, timeout: 60s, CANCEL, compensate: { native: work } }
"#;

/// The calls that were made, as `step` or `step undo`.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    fn note(&self, call: &NativeCall) {
        let suffix = if call.undo { " undo" } else { "" };
        self.0.lock().unwrap().push(format!("{}{suffix}", call.step));
    }

    fn made(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    async fn until(&self, wanted: &str) {
        eventually(PATIENCE, wanted, async || self.made().iter().any(|call| call == wanted).then_some(())).await;
    }
}

async fn stage(cancel: &str) -> Stage {
    Stage::new(&TWO_STEPS.replace("CANCEL", &format!("cancel: {cancel}"))).await
}

async fn cancel(stage: &Stage, job: JobId) {
    let (tenant, requested_by, id) = ("default".to_owned(), "somebody".to_owned(), "1".to_owned());
    let cancel = Cancel { job, tenant, requested_by, reason: None, at_ms: 1, id, requires: Vec::new() };
    stage.send(cancel_record(&stage.topics, &stage.writers, &cancel, &trace()).unwrap()).await;
}

fn is_cancelled(end: &JobEvent) -> bool {
    (end.kind, end.status) == (EventKind::JobCancelled, JobStatus::Cancelled)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_starts_later_knows_of_every_open_cancel_and_of_no_other() {
    let stage = stage("finish").await;
    let [wanted, taken_back] = [stage.submit(json!({})).await, stage.submit(json!({})).await];
    for job in [wanted, taken_back] {
        cancel(&stage, job).await;
    }
    stage.send(cancel_tombstone(&stage.topics, taken_back, &trace())).await;
    let calls = Calls::default();
    let noted = calls.clone();
    let work = move |call: NativeCall| {
        noted.note(&call);
        async { Ok(json!({})) }
    };
    let running = stage.work("a", Workers::builder().native("work", work).build());
    let ends = stage.ends().await;
    let of = |job: JobId| ends.iter().find(|end| end.job == job).unwrap();
    assert!(is_cancelled(of(wanted)) && of(taken_back).status == JobStatus::Succeeded, "{ends:?}");
    // What lay there when a worker came may have been begun, so it is undone.
    let forward: Vec<String> = calls.made().into_iter().filter(|call| !call.ends_with(" undo")).collect();
    assert_eq!(forward, ["one", "two"], "of the other job");
    running.stop().await;
    stage.tokens().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slip_that_a_cancel_has_released_says_so_itself() {
    let stage = stage("finish").await;
    let (slip, queue, events) = stage.accept(json!({}));
    for event in events {
        stage.send(events::event_record(&stage.topics, &stage.writers, &event, &trace()).unwrap()).await;
    }
    let mut record = slip_record(&stage.topics, &stage.writers, &queue, &slip, &trace()).unwrap();
    release::mark(&mut record, ReleasedBy::Cancel, None);
    stage.send(record).await;
    let work = async |call: NativeCall| {
        assert!(call.undo, "no attempt is made");
        Ok(json!({}))
    };
    let running = stage.work("a", Workers::builder().native("work", work).build());
    let ends = stage.ends().await;
    assert!(is_cancelled(&ends[0]), "{ends:?}");
    running.stop().await;
    stage.tokens().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_broken_off_and_undone_where_its_step_says_so() {
    let stage = stage("abort").await;
    let calls = Calls::default();
    let noted = calls.clone();
    let work = move |call: NativeCall| {
        noted.note(&call);
        async move {
            if call.step == "two" && !call.undo {
                std::future::pending::<()>().await;
            }
            Ok(json!({}))
        }
    };
    let running = stage.work("a", Workers::builder().native("work", work).build());
    let job = stage.submit(json!({})).await;
    calls.until("two").await;
    cancel(&stage, job).await;
    let ends = stage.ends().await;
    assert!(is_cancelled(&ends[0]), "{ends:?}");
    assert_eq!(calls.made(), ["one", "two", "two undo", "one undo"]);
    running.stop().await;
    stage.tokens().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_finishes_counts_and_hears_of_the_cancel() {
    for (step, made) in [("one", vec!["one", "one undo"]), ("two", vec!["one", "two"])] {
        let stage = stage("finish").await;
        let (calls, heard) = (Calls::default(), Arc::new(Notify::new()));
        let (noted, hears) = (calls.clone(), Arc::clone(&heard));
        let work = move |call: NativeCall| {
            noted.note(&call);
            let hears = Arc::clone(&hears);
            async move {
                if call.step == step && !call.undo {
                    assert!(!call.cancel.is_made());
                    call.cancel.made().await;
                    assert!(call.cancel.is_made());
                    hears.notify_one();
                }
                Ok(json!({}))
            }
        };
        let running = stage.work("a", Workers::builder().native("work", work).build());
        let job = stage.submit(json!({})).await;
        calls.until(step).await;
        cancel(&stage, job).await;
        heard.notified().await;
        let ends = stage.ends().await;
        let is_last = step == "two";
        assert_eq!((ends[0].status == JobStatus::Succeeded, is_cancelled(&ends[0])), (is_last, !is_last), "{ends:?}");
        assert_eq!(calls.made(), made);
        running.stop().await;
        stage.tokens().await;
    }
}
