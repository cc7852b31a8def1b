#![expect(clippy::disallowed_methods, reason = "tests own what they start")]

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bus::admin::Admin;
use bus::{AssignedPartition, Commands, ConsumerError, ConsumerOptions, GroupConsumer, Handler, Inbound};
use bus::{Producer, Reader, Record, Registry, Start};
use events::dead_letter::burial;
use events::topic::Topics;
use events::{Writer, WriterIds};
use service_kit::{Clock, Ids, Readiness};
use test_kit::{eventually, read_topic};

use super::*;
use crate::breakers::Breakers;
use crate::cancels::Cancels;
use crate::config::Config;
use crate::downstreams::Downstreams;
use crate::flows::Flows;
use crate::halted::Halted;
use crate::http::Http;
use crate::lane_table::LaneTable;
use crate::long_calls::LongCalls;
use crate::meters::Meters;
use crate::native::Natives;
use crate::topic_limits::TopicLimits;
use crate::work::Work;

const PATIENCE: Duration = Duration::from_secs(300);
const QUEUE: &str = "default";

/// Hands the work out instead of running it.
struct Hands {
    desk: Arc<Desk>,
    work: Sender<Work>,
}

impl Handler for Hands {
    fn assigned(&mut self, partitions: &[AssignedPartition]) -> anyhow::Result<Vec<Start>> {
        let known: Vec<_> = partitions.iter().map(|known| (known.clone(), known.committed.unwrap())).collect();
        self.desk.assign(&known, &BTreeMap::new(), |_| Vec::new())?;
        Ok(known.into_iter().map(|(_, offset)| Start::Offset(offset)).collect())
    }

    fn revoked(&mut self, partitions: &[TopicPartition], lost: bool) {
        self.desk.revoke(partitions, lost);
    }

    fn record(&mut self, record: Inbound, _commands: &mut Commands) {
        if let Some(work) = self.desk.deliver(record).start {
            self.work.send(work).unwrap();
        }
    }

    fn tick(&mut self, _commands: &mut Commands) {}

    fn error(&mut self, error: ConsumerError) {
        panic!("{error}");
    }
}

struct Stage {
    bus: bus::Settings,
    topics: Topics,
    desk: Arc<Desk>,
    consumer: GroupConsumer,
    committer: std::thread::JoinHandle<Result<(), TxError>>,
    work: Receiver<Work>,
    admin: Admin,
    readiness: Readiness,
}

impl Stage {
    async fn start(records: usize) -> Self {
        let bus = bus::Settings::new(test_kit::kafka().await, "http://127.0.0.1:1");
        let topics = Topics::new(test_kit::prefix());
        let admin = Admin::new(&bus).unwrap();
        let runner = Arc::new(runner(&bus, &topics, &admin));
        let queues = [QUEUE.to_owned()].into();
        eventually(PATIENCE, "topics", async || admin.create_topics(&topics, &queues, None).await.ok()).await;
        let readiness = runner.readiness.clone();
        let (group, steps) = (topics.workers_group(), [topics.steps(QUEUE)]);
        eventually(PATIENCE, "offsets", async || admin.commit_initial_offsets(&group, &steps).await.ok()).await;
        let producer = Producer::new(&bus).unwrap();
        for number in 0..records {
            let key = Some(format!("k{number}").into_bytes());
            producer.send(&Record { topic: topics.steps(QUEUE), key, ..Record::default() }).await.unwrap();
        }
        let desk = Arc::new(Desk::new(Config::default().limits(), PATIENCE));
        let (sender, work) = channel();
        let hands = Hands { desk: Arc::clone(&desk), work: sender };
        let options = ConsumerOptions::new(group, steps);
        let consumer = GroupConsumer::start(&bus, options, hands).unwrap();
        let mut producer =
            TransactionalProducer::new(&bus, &format!("{}-t", topics.prefix()), Duration::from_secs(10)).unwrap();
        producer.init(PATIENCE).unwrap();
        let interval = Duration::from_millis(20);
        let committer = Committer::new(producer, consumer.control(), Arc::clone(&desk), runner, interval, None);
        let committer = std::thread::spawn(move || committer.run());
        Self { bus, topics, desk, consumer, committer, work, admin, readiness }
    }

    /// The result of a step of this slip: an event of so many bytes.
    fn finish(&self, work: Work, bytes: usize) {
        self.finish_to(self.topics.events(), work, bytes);
    }

    fn finish_to(&self, topic: String, work: Work, bytes: usize) {
        let value = Some(vec![7; bytes]);
        let event = Record { topic, key: work.record.key.clone(), value, ..Record::default() };
        let Work { epoch, lane, record, .. } = work;
        assert!(self.desk.complete(Finished::new(epoch, lane, record, vec![event], false)).is_none());
    }

    async fn read(&self, topic: &str, wanted: usize) -> Vec<Inbound> {
        eventually(PATIENCE, "the records are there", async || {
            let records = read_topic(&self.bus.brokers, topic).await.unwrap();
            Some(records).filter(|records| records.len() >= wanted)
        })
        .await
    }

    fn stop(self) {
        self.desk.stop();
        assert!(self.consumer.stop(PATIENCE));
        self.committer.join().unwrap().unwrap();
    }
}

fn runner(bus: &bus::Settings, topics: &Topics, admin: &Admin) -> Runner {
    let readiness = Readiness::new(Clock::system(), "workers");
    let (flows, ..) = Flows::new(flow::decide::Env::default());
    let ids = WriterIds { slip: 1, job_event: 2, wait: 3, cancel: 4, progress: 5, audit_entry: 6 };
    let writer = Writer { topics: topics.clone(), ids };
    let producer = Producer::new(bus).unwrap();
    let limits = Config::default().long_calls();
    let long_calls = LongCalls::new(producer, writer.clone(), "it", limits, &process::Process::system("workers"));
    let (lanes, _) = LaneTable::new(Arc::clone(&long_calls));
    let reader = Reader::new(Registry::new(&bus.registry_url, None).unwrap());
    let (cancels, ..) = Cancels::new(reader.clone());
    Runner {
        writer,
        reader,
        flows,
        http: Http::new(&Config::default().http, None).unwrap(),
        natives: Natives::default(),
        env: flow::decide::Env::default(),
        halted: Halted::new(admin.clone(), readiness.clone()),
        limits: TopicLimits::new(admin.clone(), readiness.clone(), Ids::system()),
        long_calls,
        lanes,
        cancels,
        breakers: Breakers::new(Config::default().breakers).0,
        downstreams: Downstreams::new(Config::default().retries),
        progress: crate::progress::ProgressTopic::new(bus, Duration::MAX).unwrap(),
        leave_after: Duration::MAX,
        readiness,
        registry_missed: Arc::default(),
        meters: Meters::default(),
        clock: Clock::system(),
        ids: Ids::system(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_kafka_refuses_becomes_a_dead_letter_and_all_others_are_committed() {
    const RECORDS: usize = 30;
    let stage = Stage::start(RECORDS).await;
    for number in 0..RECORDS {
        let work = stage.work.recv_timeout(PATIENCE).unwrap();
        // Over the topic's limit of 1 MiB, under the client's of 2 MiB: only the broker can tell.
        let bytes = if number % 13 == 5 { 1_200_000 } else { 10 };
        stage.finish(work, bytes);
    }
    let letters = stage.read(&stage.topics.dead_letters(), 2).await;
    let events = stage.read(&stage.topics.events(), RECORDS - 2).await;
    assert_eq!((letters.len(), events.len()), (2, RECORDS - 2));
    assert!(letters.iter().all(|letter| burial(letter).unwrap().failure.class == "refused"));
    assert!(stage.desk.wait_idle(PATIENCE) && stage.desk.figures().0 == 0);
    stage.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_of_a_revoked_partition_are_dropped_and_the_next_epoch_takes_the_slips_again() {
    const RECORDS: usize = 12;
    let stage = Stage::start(RECORDS).await;
    let mut taken: Vec<Work> = (0..RECORDS).map(|_| stage.work.recv_timeout(PATIENCE).unwrap()).collect();
    let lost = taken[0].record.partition;
    let of_lost = taken.iter().filter(|work| work.record.partition == lost).count();
    // The callback's way, by hand: whoever owns the partition next will run these.
    stage.desk.revoke(&[TopicPartition::new(stage.topics.steps(QUEUE), lost)], false);
    for work in taken.drain(..) {
        assert_eq!(work.revoked.is_cancelled(), work.record.partition == lost);
        stage.finish(work, 10);
    }
    let events = stage.read(&stage.topics.events(), RECORDS - of_lost).await;
    assert_eq!(events.len(), RECORDS - of_lost);
    assert!(stage.desk.wait_idle(PATIENCE));
    stage.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_for_a_topic_that_takes_none_wait_until_it_does_and_all_others_are_committed() {
    const RECORDS: usize = 12;
    let stage = Stage::start(RECORDS).await;
    let late = stage.topics.steps("late");
    for number in 0..RECORDS {
        let work = stage.work.recv_timeout(PATIENCE).unwrap();
        let topic = if number % 4 == 1 { late.clone() } else { stage.topics.events() };
        stage.finish_to(topic, work, 10);
    }
    let events = stage.read(&stage.topics.events(), RECORDS - 3).await;
    assert_eq!(events.len(), RECORDS - 3);
    eventually(PATIENCE, "readiness names the topic", async || {
        let all = stage.readiness.dependencies();
        all.into_iter().find(|dependency| !dependency.ok && dependency.message.contains(&late))
    })
    .await;
    assert_eq!(stage.desk.figures().0, 3, "their slips are not finished");
    stage.admin.create_topics(&stage.topics, &["late".to_owned()].into(), None).await.unwrap();
    assert_eq!(stage.read(&late, 3).await.len(), 3);
    assert!(stage.desk.wait_idle(PATIENCE) && stage.desk.figures().0 == 0);
    eventually(PATIENCE, "ready again", async || stage.readiness.is_ready().then_some(())).await;
    stage.stop();
}
