//! Whatever a slip waits for, its partition goes on, and the jobs of its key go on in order.

use bus::{Producer, Reader, Registry};
use events::{event_record, slip_record};
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::id::JobId;
use flow::slip::{HoldReason, Slip};
use serde_json::json;
use test_kit::{Role, TEST_TRACE, TestSystemBuilder, Tokens, sample_event, sample_job, sample_slip};

use crate::partition::Partition;
use crate::stage::Stage;
use crate::turn::alone;

/// More than what can be remembered as finished out of order in one partition, some 21,000 offsets.
const QUICK: usize = 30_000;
const LONG: usize = 30;
const PARTITION: Partition = Partition(3);

/// A queue so short that quick calls stay quick on a busy machine, and a time that none of them takes.
fn short_queue(builder: TestSystemBuilder) -> TestSystemBuilder {
    builder
        .variable("MEANWHILE__WORKERS__QUEUE_SLIPS_MAX", "200")
        .variable("MEANWHILE__WORKERS__DETACH_AFTER_MS", "2000")
}

/// Sends so many quick jobs through the partition, and waits until as many have ended beside those that are there.
async fn let_quick_ones_pass(stage: &Stage, keys: impl Iterator<Item = String>, others: &[JobId]) {
    stage.quick(keys.take(QUICK)).await;
    stage.watch.until_ended(QUICK, others).await;
}

fn count(tokens: &Tokens, kind: EventKind) -> usize {
    tokens.events.iter().filter(|event| event.kind == kind).count()
}

/// The status of a job whose call is under way says so.
async fn assert_shown_as_running(stage: &mut Stage, job: JobId) {
    let status = stage.status(job).await;
    let step = &status["steps"][0];
    assert_eq!(
        (&status["status"], &step["status"], &step["attempts"]),
        (&json!("running"), &json!("running"), &json!(1))
    );
    let running = &step["running"];
    assert!(running["worker"].as_str().is_some_and(|worker| worker.starts_with("workers-0/")), "{status}");
    assert!(running["since"].as_str().is_some_and(|since| since > status["created_at"].as_str().unwrap()), "{status}");
    let worker = stage.system.role(Role::Workers);
    assert_eq!(worker.metric("meanwhile_long_calls", "queue=\"default\"").await.unwrap(), LONG as f64);
    assert!(worker.metric("meanwhile_long_call_oldest_seconds", "queue=\"default\"").await.unwrap() > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quick_jobs_end_while_long_calls_hold_their_keys_in_the_same_partition() {
    let _turn = alone();
    let mut stage = Stage::start_with(short_queue).await;
    let mut keys = PARTITION.keys("call");
    let key = keys.next().unwrap();
    let mut long = vec![stage.call_as(&key, "held").await];
    for other in keys.by_ref().take(LONG - 1) {
        long.push(stage.call_as(&other, "held").await);
    }
    stage.called.until_open(LONG).await;
    // Behind the first one, by its key; some of them take long, too.
    let mut behind = vec![];
    for path in ["noted", "takes-3000", "noted", "noted", "takes-3000", "noted"] {
        behind.push(stage.call_as(&key, path).await);
    }
    let_quick_ones_pass(&stage, keys, &[&long[..], &behind].concat()).await;
    behind.push(stage.call_as(&key, "noted").await);
    assert_eq!(stage.called.open(), LONG, "the long calls are still under way");
    assert!(behind.iter().all(|job| stage.called.calls_of(*job).is_empty()), "the key is taken");
    stage.watch.until_running(&long).await;
    assert_shown_as_running(&mut stage, long[0]).await;

    stage.called.release();
    let (tokens, called) = stage.finish().await;
    called.assert_called_once(&long);
    called.assert_called_once(&behind);
    let of_key: Vec<_> = [long[0]].iter().chain(&behind).map(|job| called.calls_of(*job)[0]).collect();
    let places: Vec<u64> = of_key.iter().flat_map(|call| [call.began_at, call.ended_at.unwrap()]).collect();
    assert!(places.is_sorted(), "one after the other: {places:?}");
    assert_eq!(tokens.ends().len(), QUICK + long.len() + behind.len());
    assert_eq!(count(&tokens, EventKind::JobSucceeded), QUICK + long.len() + behind.len());
    let holds = |reason| tokens.holds.iter().filter(|hold| hold.reason == reason).count();
    assert_eq!(holds(HoldReason::Running), count(&tokens, EventKind::StepRunning));
    assert!(holds(HoldReason::Turn) >= behind.len(), "those behind have rested");
}

/// A slip of a flow that nobody knows, with what else there would be of its job.
async fn send_slip_of_an_unknown_flow(stage: &Stage) -> JobId {
    let (settings, topics) = (stage.system.settings(), stage.system.topics());
    let reader = Reader::new(Registry::new(stage.system.registry_url(), None).unwrap());
    let writers = reader.writer_ids(&topics).await.unwrap();
    let producer = Producer::new(&settings).unwrap();
    let (job, key) = (sample_job(), PARTITION.keys("unknown").next().unwrap());
    let slip = Slip { flow: "unknown".to_owned(), key, ..sample_slip(job, 1) };
    producer.send(&slip_record(&topics, &writers, "default", &slip, &TEST_TRACE).unwrap()).await.unwrap();
    let accepted = sample_event(job, EventKind::JobAccepted, JobStatus::Accepted, 0);
    let ended = JobEvent { index: 1, ..sample_event(job, EventKind::JobFailed, JobStatus::Failed, 1) };
    for event in [accepted, ended] {
        producer.send(&event_record(&topics, &writers, &event, &TEST_TRACE).unwrap()).await.unwrap();
    }
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quick_jobs_end_while_others_wait_for_an_answer_a_back_off_a_step_or_a_flow() {
    let _turn = alone();
    // Each attempt and each back-off is shorter than the time after which a call counts as long.
    let mut stage = Stage::start_with(short_queue).await;
    let mut keys = PARTITION.keys("call");
    let mut next = || keys.next().unwrap();
    let (hanging, refused) = (stage.call_as(&next(), "held").await, stage.call_as(&next(), "busy").await);
    let nobodys = PARTITION.keys("nobodys").next().unwrap();
    let nobodys = stage.submit("nobodys", &nobodys, "-").await;
    stage.called.until_open(2).await;
    let unknown = send_slip_of_an_unknown_flow(&stage).await;
    let_quick_ones_pass(&stage, keys, &[hanging, refused, nobodys, unknown]).await;
    assert!(![hanging, refused].iter().any(|job| stage.watch.seen().ends.contains_key(job)), "they still wait");
    stage.called.release();
    let (tokens, called) = stage.finish().await;
    called.assert_called_once(&[hanging]);
    assert!(called.calls_of(refused).len() > 1);
    assert_eq!(tokens.dead_letters, 1);
    let ends = tokens.ends();
    assert_eq!(
        [hanging, refused, nobodys].map(|job| ends[&job].kind),
        [EventKind::JobSucceeded, EventKind::JobSucceeded, EventKind::JobFailed]
    );
}
