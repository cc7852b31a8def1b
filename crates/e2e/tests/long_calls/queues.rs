//! Whatever a slip waits for, its partition goes on, and the jobs of its key go on in order.

use bus::{Producer, Reader, Registry};
use events::{RecordKind, WriterIds, event_record, slip_record};
use flow::decide::{NewJob, Next, start};
use flow::event::EventKind;
use flow::id::{JobId, TokenId};
use flow::slip::HoldReason;
use serde_json::json;
use test_kit::{Role, TEST_TRACE, TestSystemBuilder, Tokens, sample_job};

use crate::called::Called;
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
    // The refused one counts while its attempts and pauses together take long.
    let calls = worker.metric("meanwhile_long_calls", "queue=\"default\"").await.unwrap();
    assert!([LONG as f64, LONG as f64 + 1.0].contains(&calls), "{calls} long calls");
    assert!(worker.metric("meanwhile_long_call_oldest_seconds", "queue=\"default\"").await.unwrap() > 0.0);
}

/// Long calls, and jobs of the first one's key behind it.
struct HeldKeys {
    long: Vec<JobId>,
    behind: Vec<JobId>,
}

impl HeldKeys {
    async fn start(stage: &mut Stage, keys: &mut impl Iterator<Item = String>) -> Self {
        let keys: Vec<String> = keys.take(LONG).collect();
        let mut long = vec![];
        for key in &keys {
            long.push(stage.call_as(key, "held").await);
        }
        stage.called.until_open(LONG).await;
        // Some of those behind take long, too.
        let mut behind = vec![];
        for path in ["noted", "takes-3000", "noted", "noted", "takes-3000", "noted"] {
            behind.push(stage.call_as(&keys[0], path).await);
        }
        Self { long, behind }
    }

    fn assert_under_way(&self, called: &Called) {
        let under_way = |job: &JobId| called.calls_of(*job).iter().all(|call| call.ended_at.is_none() && !call.cut);
        assert!(self.long.iter().all(under_way), "the long calls are still under way");
        assert!(self.behind.iter().all(|job| called.calls_of(*job).is_empty()), "the key is taken");
    }

    /// One call of each job, those of one key in their order.
    fn assert_called_in_order(&self, called: &Called) {
        called.assert_called_once(&self.long);
        called.assert_called_once(&self.behind);
        let of_key: Vec<_> = [self.long[0]].iter().chain(&self.behind).map(|job| called.calls_of(*job)[0]).collect();
        let places: Vec<u64> = of_key.iter().flat_map(|call| [call.began_at, call.ended_at.unwrap()]).collect();
        assert!(places.is_sorted(), "one after the other: {places:?}");
    }
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

/// Jobs of one key of which nobody can read the first one's slip.
async fn submit_behind_an_unread_one(stage: &mut Stage, keys: &mut impl Iterator<Item = String>) -> [JobId; 3] {
    let key = keys.next().unwrap();
    let unread = submit_unread(stage, &key).await;
    [unread, stage.call_as(&key, "noted").await, stage.call_as(&key, "noted").await]
}

/// One pass of quick jobs for all that others can wait for: it is what takes the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quick_jobs_end_while_others_of_their_partition_wait_for_a_call_a_back_off_a_step_or_the_registry() {
    let _turn = nearly_alone().await;
    let mut stage = Stage::start_with(|builder| short_queue(builder).private_registry()).await;
    let mut keys = PARTITION.keys("call");
    let mut held = HeldKeys::start(&mut stage, &mut keys).await;
    // Each of its attempts and back-offs is shorter than the time after which a call counts as long.
    let refused = stage.call_as(&keys.next().unwrap(), "busy").await;
    let nobodys = PARTITION.keys("nobodys").next().unwrap();
    let nobodys = stage.submit("nobodys", &nobodys, "-").await;
    let unread = submit_behind_an_unread_one(&mut stage, &mut keys).await;
    let others = [&held.long[..], &held.behind, &unread, &[refused, nobodys]].concat();
    let_quick_ones_pass(&stage, keys, &others).await;
    held.behind.push(stage.call_as(&PARTITION.keys("call").next().unwrap(), "noted").await);
    held.assert_under_way(&stage.called);
    assert!(!stage.watch.seen().ends.contains_key(&refused), "it still waits");
    assert!(unread.iter().all(|job| stage.called.calls_of(*job).is_empty()), "nobody has read it");
    stage.watch.until_running(&held.long).await;
    assert_shown_as_running(&mut stage, held.long[0]).await;

    stage.system.registry().restart().await.unwrap();
    stage.called.release();
    let (tokens, called) = stage.finish().await;
    held.assert_called_in_order(&called);
    assert!(called.calls_of(refused).len() > 1);
    called.assert_called_once(&unread);
    let places: Vec<u64> = unread.iter().map(|job| called.calls_of(*job)[0].began_at).collect();
    assert!(places.is_sorted(), "in their order: {places:?}");
    assert!(tokens.unread.contains(&TokenId { job: unread[0], branch: String::new(), hop: 1 }), "{:?}", tokens.unread);
    assert_eq!(tokens.dead_letters, 0);
    assert_eq!(tokens.ends()[&nobodys].kind, EventKind::JobFailed);
    // The last one behind the long calls came after the others.
    assert_eq!(tokens.ends().len(), QUICK + others.len() + 1);
    assert_eq!(count(&tokens, EventKind::JobSucceeded), QUICK + others.len());
    let holds = |reason| tokens.holds.iter().filter(|hold| hold.reason == reason).count();
    assert_eq!(holds(HoldReason::Running), count(&tokens, EventKind::StepRunning));
    assert!(holds(HoldReason::Turn) >= held.behind.len(), "those behind have rested");
}
