//! A cluster with one fresh topic, and a handler that tells what befalls it.

use events::headers::Headers;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::admin::Admin;
use bus::{
    AssignedPartition, Commands, ConsumerError, ConsumerOptions, Control, GroupConsumer, Handler, Inbound,
    OffsetCommit, Record, Settings, Start, TopicPartition, TransactionalProducer, TxError,
};
use events::topic::Topics;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::mpsc;

/// Ends a test that hangs; no pass or fail of its own.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub(crate) settings: Settings,
    pub(crate) admin: Admin,
    pub(crate) topics: Topics,
}

impl Cluster {
    /// The shared broker, with all topics and the queue `q` under a fresh prefix.
    pub(crate) async fn shared() -> Self {
        Self::at(test_kit::kafka().await).await
    }

    pub(crate) async fn at(brokers: String) -> Self {
        let settings = Settings::new(brokers, "");
        let admin = Admin::new(&settings).unwrap();
        let topics = Topics::new(test_kit::prefix());
        admin.create_topics(&topics, &["q".to_owned()].into(), None).await.unwrap();
        Self { settings, admin, topics }
    }

    /// Six partitions.
    pub(crate) fn topic(&self) -> String {
        self.topics.steps("q")
    }

    pub(crate) fn group(&self) -> String {
        format!("{}-group", self.topics.prefix())
    }

    pub(crate) fn options(&self) -> ConsumerOptions {
        let mut options = ConsumerOptions::new(self.group(), [self.topic()]);
        options.session_timeout = Duration::from_secs(6);
        options
    }

    /// An initialised transactional producer.
    pub(crate) async fn producer(&self, id: &str) -> TransactionalProducer {
        let (settings, id) = (self.settings.clone(), format!("{}-{id}", self.topics.prefix()));
        blocking(move || {
            let mut producer = TransactionalProducer::new(&settings, &id, Duration::from_secs(10)).unwrap();
            producer.init(LONG).unwrap();
            producer
        })
        .await
    }

    /// Offsets that are taken in the topic, by open transactions too.
    pub(crate) async fn written(&self) -> i64 {
        let (mut config, topic) = (ClientConfig::new(), self.topic());
        config.set("bootstrap.servers", &self.settings.brokers).set("isolation.level", "read_uncommitted");
        blocking(move || {
            let consumer: BaseConsumer = config.create().unwrap();
            (0..6).map(|partition| consumer.fetch_watermarks(&topic, partition, LONG).unwrap().1).sum()
        })
        .await
    }

    /// Sends these values in one committed transaction, spread over the partitions by key.
    pub(crate) async fn commit(&self, values: impl IntoIterator<Item = String>) {
        let records: Vec<Record> = values.into_iter().map(|value| record(&self.topic(), &value)).collect();
        // Where it is new in a partition, one may have to be given up before it commits; another takes its id over.
        while !commit_all(self.producer("sender").await, records.clone()).await {}
    }
}

/// False if the producer is of no use any more; then nothing was committed.
async fn commit_all(mut producer: TransactionalProducer, records: Vec<Record>) -> bool {
    blocking(move || {
        // A transaction may have to be aborted, where the producer is new in a partition for example.
        loop {
            producer.begin().unwrap();
            for record in &records {
                producer.send(record).unwrap();
            }
            match producer.commit() {
                Ok(()) => return true,
                Err(TxError::Abortable(_)) => producer.abort().unwrap(),
                Err(TxError::Fatal(_)) => return false,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

pub(crate) fn record(topic: &str, value: &str) -> Record {
    Record {
        topic: topic.to_owned(),
        key: Some(value.as_bytes().to_vec()),
        value: Some(value.as_bytes().to_vec()),
        headers: Headers::from([("h", Some("1")), ("none", None)]),
    }
}

pub(crate) fn text(inbound: &Inbound) -> String {
    String::from_utf8(inbound.value.clone().unwrap()).unwrap()
}

pub(crate) fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name}-{number}")).collect()
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// What a consumer told its handler.
#[derive(Debug)]
pub(crate) enum Happening {
    Assigned(Vec<AssignedPartition>),
    Revoked(Vec<TopicPartition>, bool),
    Record(Inbound),
    Error(ConsumerError),
}

type Starts = dyn FnMut(&AssignedPartition) -> anyhow::Result<Start> + Send;
type Orders = Arc<Mutex<Vec<Box<dyn FnOnce(&mut Commands) + Send>>>>;

/// Tells everything, and starts where the closure says.
struct Teller {
    happenings: mpsc::UnboundedSender<Happening>,
    starts: Box<Starts>,
    orders: Orders,
}

impl Handler for Teller {
    fn assigned(&mut self, partitions: &[AssignedPartition]) -> anyhow::Result<Vec<Start>> {
        let starts = partitions.iter().map(|partition| (self.starts)(partition)).collect();
        let _ = self.happenings.send(Happening::Assigned(partitions.to_vec()));
        starts
    }

    fn revoked(&mut self, partitions: &[TopicPartition], lost: bool) {
        let _ = self.happenings.send(Happening::Revoked(partitions.to_vec(), lost));
    }

    fn record(&mut self, record: Inbound, _commands: &mut Commands) {
        let _ = self.happenings.send(Happening::Record(record));
    }

    fn tick(&mut self, commands: &mut Commands) {
        for order in std::mem::take(&mut *self.orders.lock().unwrap()) {
            order(commands);
        }
    }

    fn error(&mut self, error: ConsumerError) {
        let _ = self.happenings.send(Happening::Error(error));
    }
}

/// A consumer under observation.
pub(crate) struct Watched {
    pub(crate) consumer: Option<GroupConsumer>,
    pub(crate) control: Control,
    happenings: mpsc::UnboundedReceiver<Happening>,
    orders: Orders,
}

/// Where the group committed, else at the beginning.
pub(crate) fn committed_or_beginning(partition: &AssignedPartition) -> anyhow::Result<Start> {
    Ok(partition.committed.map_or(Start::Beginning, Start::Offset))
}

impl Watched {
    pub(crate) fn start(
        settings: &Settings,
        options: ConsumerOptions,
        starts: impl FnMut(&AssignedPartition) -> anyhow::Result<Start> + Send + 'static,
    ) -> Self {
        let (sender, happenings) = mpsc::unbounded_channel();
        let orders = Orders::default();
        let teller = Teller { happenings: sender, starts: Box::new(starts), orders: Arc::clone(&orders) };
        let consumer = GroupConsumer::start(settings, options, teller).unwrap();
        let control = consumer.control();
        Self { consumer: Some(consumer), control, happenings, orders }
    }

    pub(crate) async fn next(&mut self) -> Happening {
        tokio::time::timeout(LONG, self.happenings.recv()).await.expect("something happens").expect("a live consumer")
    }

    /// The next happening that `pick` likes; the others are passed over.
    pub(crate) async fn find<T>(&mut self, mut pick: impl FnMut(Happening) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next().await) {
                return found;
            }
        }
    }

    pub(crate) async fn assigned(&mut self) -> Vec<AssignedPartition> {
        self.find(|happening| match happening {
            Happening::Assigned(partitions) if !partitions.is_empty() => Some(partitions),
            _ => None,
        })
        .await
    }

    pub(crate) async fn error(&mut self) -> ConsumerError {
        self.find(|happening| match happening {
            Happening::Error(error) => Some(error),
            _ => None,
        })
        .await
    }

    /// The next records, as many as asked for.
    pub(crate) async fn records(&mut self, count: usize) -> Vec<Inbound> {
        let mut records = Vec::new();
        while records.len() < count {
            if let Happening::Record(record) = self.next().await {
                records.push(record);
            }
        }
        records
    }

    pub(crate) async fn values(&mut self, count: usize) -> Vec<String> {
        let mut values: Vec<String> = self.records(count).await.iter().map(text).collect();
        values.sort();
        values
    }

    /// What has happened up to now, without waiting.
    pub(crate) fn so_far(&mut self) -> Vec<Happening> {
        std::iter::from_fn(|| self.happenings.try_recv().ok()).collect()
    }

    pub(crate) fn order(&self, order: impl FnOnce(&mut Commands) + Send + 'static) {
        self.orders.lock().unwrap().push(Box::new(order));
        self.control.wake();
    }

    pub(crate) async fn stop(&mut self) {
        let consumer = self.consumer.take().unwrap();
        assert!(blocking(move || consumer.stop(LONG)).await, "the consumer leaves");
    }
}

/// One past the last record of each partition.
pub(crate) fn next_offsets(records: &[Inbound]) -> Vec<OffsetCommit> {
    let mut next = BTreeMap::new();
    for record in records {
        next.insert((record.topic.clone(), record.partition), record.offset + 1);
    }
    let commit = |((topic, partition), next_offset)| OffsetCommit { topic, partition, next_offset, metadata: None };
    next.into_iter().map(commit).collect()
}

pub(crate) fn sorted(mut values: Vec<String>) -> Vec<String> {
    values.sort();
    values
}
