//! Whatever a slip waits for, its partition goes on, and the jobs of its key go on in order.

use bus::{Producer, Reader, Registry};
use events::{RecordKind, WriterIds, event_record, slip_record};
use flow::decide::{NewJob, Next, start};
use flow::event::EventKind;
use flow::id::{JobId, TokenId};
use flow::slip::HoldReason;
use serde_json::json;
use test_kit::{Role, TEST_TRACE, TestSystemBuilder, Tokens, sample_job};

use crate::partition::Partition;
use crate::stage::Stage;
use crate::turn::nearly_alone;

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
    let _turn = nearly_alone().await;
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

/// A job of flow `call` whose first slip has a schema that nobody knows yet, and is not to be had.
async fn submit_unread(stage: &mut Stage, key: &str) -> JobId {
    let (settings, topics) = (stage.system.settings(), stage.system.topics());
    let registry = Registry::new(stage.system.registry_url(), None).unwrap();
    let other = RecordKind::Slip.latest().replacen("\"type\"", "\"doc\": \"another\", \"type\"", 1);
    let id = registry.register(&format!("{}-other", topics.prefix()), &other).await.unwrap();
    let writers = Reader::new(registry).writer_ids(&topics).await.unwrap();
    stage.system.registry().kill9();
    let definition = stage.definition("call");
    let (job, input) = (sample_job(), json!({ "key": key, "path": "noted" }));
    let new = NewJob {
        job,
        tenant: "default".to_owned(),
        key: key.to_owned(),
        input,
        correlation_id: "unread".to_owned(),
        priority: 1,
        retry_of: None,
    };
    let (now_s, _) = uuid::Uuid::now_v7().get_timestamp().unwrap().to_unix();
    let decision = start(&definition, new, i64::try_from(now_s).unwrap() * 1_000);
    let Next::Step { slip, queue } = decision.next else { panic!("a first step") };
    let producer = Producer::new(&settings).unwrap();
    for event in &decision.events {
        producer.send(&event_record(&topics, &writers, event, &TEST_TRACE).unwrap()).await.unwrap();
    }
    let writers = WriterIds { slip: id, ..writers };
    producer.send(&slip_record(&topics, &writers, &queue, &slip, &TEST_TRACE).unwrap()).await.unwrap();
    stage.system.note_accepted([job]);
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quick_jobs_end_while_a_slip_waits_for_the_registry_and_those_of_its_key_wait_for_it() {
    let _turn = nearly_alone().await;
    let mut stage = Stage::start_with(|builder| short_queue(builder).private_registry()).await;
    let mut keys = PARTITION.keys("call");
    let key = keys.next().unwrap();
    let unread = submit_unread(&mut stage, &key).await;
    let behind = [stage.call_as(&key, "noted").await, stage.call_as(&key, "noted").await];
    let all = [&[unread][..], &behind].concat();
    let_quick_ones_pass(&stage, keys, &all).await;
    assert!(all.iter().all(|job| stage.called.calls_of(*job).is_empty()), "nobody has read it");
    stage.system.registry().restart().await.unwrap();
    let (tokens, called) = stage.finish().await;
    called.assert_called_once(&all);
    let places: Vec<u64> = all.iter().map(|job| called.calls_of(*job)[0].began_at).collect();
    assert!(places.is_sorted(), "in their order: {places:?}");
    assert!(tokens.unread.contains(&TokenId { job: unread, branch: String::new(), hop: 1 }), "{:?}", tokens.unread);
    assert_eq!(tokens.dead_letters, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quick_jobs_end_while_others_wait_for_an_answer_a_back_off_or_a_step() {
    let _turn = nearly_alone().await;
    // Each attempt and each back-off is shorter than the time after which a call counts as long.
    let mut stage = Stage::start_with(short_queue).await;
    let mut keys = PARTITION.keys("call");
    let mut next = || keys.next().unwrap();
    let (hanging, refused) = (stage.call_as(&next(), "held").await, stage.call_as(&next(), "busy").await);
    let nobodys = PARTITION.keys("nobodys").next().unwrap();
    let nobodys = stage.submit("nobodys", &nobodys, "-").await;
    stage.called.until_open(2).await;
    let_quick_ones_pass(&stage, keys, &[hanging, refused, nobodys]).await;
    assert!(![hanging, refused].iter().any(|job| stage.watch.seen().ends.contains_key(job)), "they still wait");
    stage.called.release();
    let (tokens, called) = stage.finish().await;
    called.assert_called_once(&[hanging]);
    assert!(called.calls_of(refused).len() > 1);
    assert_eq!(tokens.dead_letters, 0);
    let ends = tokens.ends();
    assert_eq!(
        [hanging, refused, nobodys].map(|job| ends[&job].kind),
        [EventKind::JobSucceeded, EventKind::JobSucceeded, EventKind::JobFailed]
    );
}
