//! A partition that nobody can say where to read stops alone: no call of another one is cut off or made again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bus::admin::Admin;
use bus::{
    AssignedPartition, Commands, ConsumerError, ConsumerOptions, GroupConsumer, Handler, Inbound, OffsetCommit, Start,
    TopicPartition, TransactionalProducer,
};
use events::Record;
use serde_json::json;
use test_kit::{eventually, read_topic};
use tokio::sync::watch;
use workers::{NativeCall, NativeError, Workers};

use crate::stage::{PATIENCE, Running, Stage};

const SLOW: &str = r#"
flow: slow
key: "{{ input.key }}"
steps:
  - { id: one, native: slow, timeout: 10m }
"#;

const QUICK: &str = r#"
flow: quick
key: "{{ input.key }}"
steps:
  - { id: one, native: quick, queue: other }
"#;

const JOBS: usize = 12;

/// Calls per job.
type Calls = Arc<Mutex<BTreeMap<String, usize>>>;

/// A worker with slow steps under way, and another queue that it is about to hear of.
struct Scene {
    slow: Stage,
    quick: Stage,
    admin: Admin,
    group: String,
    slow_calls: Calls,
    quick_calls: Calls,
    gate: watch::Sender<bool>,
    running: Running,
}

fn count(calls: &Calls, call: &NativeCall) {
    *calls.lock().unwrap().entry(call.job.to_string()).or_default() += 1;
}

impl Scene {
    async fn set() -> Self {
        let (slow, mut quick) = (Stage::new(SLOW).await, Stage::new(QUICK).await);
        quick.topics = slow.topics.clone();
        let admin = Admin::new(&slow.bus).unwrap();
        let group = slow.topics.workers_group();
        let (slow_calls, quick_calls) = (Calls::default(), Calls::default());
        let gate = watch::Sender::new(false);
        let (counted, opened) = (Arc::clone(&slow_calls), gate.subscribe());
        let workers = Workers::builder().native("slow", move |call| {
            count(&counted, &call);
            let mut opened = opened.clone();
            async move {
                opened.wait_for(|open| *open).await.unwrap();
                Ok::<_, NativeError>(json!({}))
            }
        });
        let counted = Arc::clone(&quick_calls);
        let workers = workers.native("quick", move |call| {
            count(&counted, &call);
            async { Ok(json!({})) }
        });
        let mut settings = slow.settings("a");
        // Nothing here applies what comes of steps that have left.
        settings.config.detach_after_ms = 3_600_000;
        settings.config.drain_timeout_ms = 120_000;
        let running = slow.work_with(settings, workers.build());
        for number in 0..JOBS {
            slow.submit(json!({ "key": format!("k{number}") })).await;
        }
        let scene = Self { slow, quick, admin, group, slow_calls, quick_calls, gate, running };
        eventually(PATIENCE, "slow steps are under way", async || {
            Some(()).filter(|()| scene.slow_calls.lock().unwrap().len() == JOBS)
        })
        .await;
        scene
    }

    fn topic(&self) -> String {
        self.slow.topics.steps("other")
    }

    /// The worker hears of the other queue, which has slips.
    async fn open_queue(&self) {
        for number in 0..JOBS {
            self.quick.submit(json!({ "key": format!("k{number}") })).await;
        }
        self.quick.publish(&self.quick.definition).await;
    }

    /// Waits until readiness names this partition; what it says.
    async fn halted(&self, place: &TopicPartition) -> String {
        eventually(PATIENCE, "readiness names the partition", async || {
            let all = self.running.readiness.dependencies();
            let missing = all.into_iter().find(|dependency| dependency.name == "offsets" && !dependency.ok);
            missing.map(|dependency| dependency.message).filter(|message| message.contains(&place.to_string()))
        })
        .await
    }

    /// Waits until everything that can be read was called, and nothing else was.
    async fn called_all_but(&self, halted: impl Fn(i32) -> bool) {
        let slips = read_topic(&self.slow.bus.brokers, &self.topic()).await.unwrap();
        let readable = slips.iter().filter(|slip| !halted(slip.partition)).count();
        assert!(readable < JOBS, "some lie in what is halted");
        eventually(PATIENCE, "the other partitions are worked on", async || {
            Some(()).filter(|()| self.quick_calls.lock().unwrap().len() == readable)
        })
        .await;
    }

    async fn ends(self) {
        self.gate.send_replace(true);
        self.slow.ends().await;
        self.quick.ends().await;
        eventually(PATIENCE, "ready again", async || self.running.readiness.is_ready().then_some(())).await;
        self.running.stop().await;
        for calls in [self.slow_calls, self.quick_calls] {
            let calls = calls.lock().unwrap();
            assert!(calls.len() == JOBS && calls.values().all(|count| *count == 1), "each once: {calls:?}");
        }
    }
}

/// Commits an offset for the group as somebody who is no member of it.
async fn commit(stage: &Stage, group: &str, place: &TopicPartition, next_offset: i64) {
    struct Nobody;
    impl Handler for Nobody {
        fn assigned(&mut self, _: &[AssignedPartition]) -> anyhow::Result<Vec<Start>> {
            Ok(Vec::new())
        }
        fn revoked(&mut self, _: &[TopicPartition], _: bool) {}
        fn record(&mut self, _: Inbound, _: &mut Commands) {}
        fn tick(&mut self, _: &mut Commands) {}
        fn error(&mut self, _: ConsumerError) {}
    }
    let (bus, id) = (stage.bus.clone(), format!("{}-repair", stage.topics.prefix()));
    let options = ConsumerOptions::new(group, Vec::<String>::new());
    let TopicPartition { topic, partition } = place.clone();
    let repair = move || {
        let nobody = GroupConsumer::start(&bus, options, Nobody).unwrap();
        let metadata = nobody.group_metadata().unwrap();
        let mut producer = TransactionalProducer::new(&bus, &id, PATIENCE).unwrap();
        producer.init(PATIENCE).unwrap();
        producer.begin().unwrap();
        let offset = OffsetCommit { topic, partition, next_offset, metadata: None };
        producer.send_offsets(&[offset], &metadata).unwrap();
        producer.commit().unwrap();
    };
    tokio::task::spawn_blocking(repair).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_whose_offset_is_not_in_the_log_stops_alone_until_the_offset_is_repaired() {
    let scene = Scene::set().await;
    let topic = scene.topic();
    scene.admin.ensure_queue(&scene.slow.topics, "other", &scene.group, None).await.unwrap();
    for value in ["one", "two"] {
        let (key, value) = (Some(b"default/quick/k1".to_vec()), Some(value.into()));
        scene.slow.send(Record { topic: topic.clone(), key, value, ..Record::default() }).await;
    }
    let ends = scene.admin.end_offsets(std::slice::from_ref(&topic)).await.unwrap();
    let (place, end) = ends.into_iter().max_by_key(|(_, end)| *end).unwrap();
    scene.admin.delete_records(&[(place.clone(), end)]).await.unwrap();
    scene.open_queue().await;
    let told = scene.halted(&place).await;
    assert!(told.contains("docs/runbooks/offset-out-of-range.md"), "{told}");
    scene.called_all_but(|partition| partition == place.partition).await;
    commit(&scene.slow, &scene.group, &place, end).await;
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_without_an_offset_stop_alone_until_they_have_one() {
    let scene = Scene::set().await;
    let (topic, queue) = (scene.topic(), ["other".to_owned()].into());
    scene.admin.create_topics(&scene.slow.topics, &queue, None).await.unwrap();
    for partition in 1..3 {
        commit(&scene.slow, &scene.group, &TopicPartition::new(&topic, partition), 0).await;
    }
    scene.open_queue().await;
    let told = scene.halted(&TopicPartition::new(&topic, 0)).await;
    assert!(told.contains("meanwhile migrate"), "{told}");
    scene.called_all_but(|partition| !(1..3).contains(&partition)).await;
    scene.admin.commit_initial_offsets(&scene.group, &[topic]).await.unwrap();
    scene.ends().await;
}
