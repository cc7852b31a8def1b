//! A broker that has just started may answer without naming any broker. librdkafka then forgets all that it knew, and
//! asks nobody any more. Each kind of client is made anew, in place.

use bus::admin::Admin;
use bus::{Backlog, Producer, Settings, Table, Tail, TransactionalProducer};
use test_kit::{KafkaOptions, ProxiedKafka, eventually};
use tokio::sync::OnceCell;

use crate::kit::{Cluster, Happening, LONG, Watched, blocking, committed_or_beginning, numbered, record, sorted, text};

static KAFKA: OnceCell<ProxiedKafka> = OnceCell::const_new();

/// A cluster, and a client's settings under a name of its own, by which the proxy knows it.
struct Deafened {
    kafka: &'static ProxiedKafka,
    cluster: Cluster,
    settings: Settings,
}

impl Deafened {
    async fn new() -> Self {
        let kafka = KAFKA.get_or_init(async || ProxiedKafka::start(KafkaOptions::default()).await.unwrap()).await;
        let cluster = Cluster::at(kafka.brokers()).await;
        let settings = Settings { client_id: cluster.topics.prefix().to_owned(), ..cluster.settings.clone() };
        Self { kafka, cluster, settings }
    }

    /// Hides the brokers from the client until it is deaf.
    async fn deafen(&self, is_deaf: impl Fn() -> bool) {
        self.kafka.hide_brokers_from(&self.settings.client_id);
        eventually(LONG, "the client knows no broker", async || is_deaf().then_some(())).await;
        self.kafka.show_brokers_to(&self.settings.client_id);
    }

    /// Hides the brokers from one answer to the client, at least.
    async fn hide_once(&self) {
        self.kafka.hide_brokers_from(&self.settings.client_id);
        self.kafka.until_hidden_from(&self.settings.client_id, 1).await;
        self.kafka.show_brokers_to(&self.settings.client_id);
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_goes_on_from_its_own_position() {
    let deafened = Deafened::new().await;
    let topic = deafened.cluster.topic();
    deafened.cluster.commit(numbered("a", 40)).await;
    let (loaded, mut tail) = within(Table::load(&deafened.settings, &topic)).await.unwrap();
    assert_eq!(loaded.len(), 40);
    deafened.deafen(|| tail.is_down()).await;
    deafened.cluster.commit(["b".to_owned()]).await;
    assert_eq!(within(tail.next()).await.unwrap().iter().map(text).collect::<Vec<_>>(), ["b"]);
    deafened.cluster.commit(["c".to_owned()]).await;
    let rest = within(tail.read_to_end_now()).await.unwrap();
    assert_eq!(rest.iter().map(text).collect::<Vec<_>>(), ["c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_goes_on_from_its_own_position() {
    let deafened = Deafened::new().await;
    let wait = deafened.cluster.options().fetch_wait_max;
    let mut tail = within(Tail::start(&deafened.settings, &deafened.cluster.topic(), wait)).await.unwrap();
    deafened.cluster.commit(numbered("a", 40)).await;
    let mut seen = Vec::new();
    while seen.len() < 40 {
        seen.extend(within(tail.next()).await.unwrap());
    }
    deafened.deafen(|| tail.is_down()).await;
    deafened.cluster.commit(numbered("b", 40)).await;
    while seen.len() < 80 {
        seen.extend(within(tail.next()).await.unwrap());
    }
    let all = sorted([numbered("a", 40), numbered("b", 40)].concat());
    assert_eq!(sorted(seen.iter().map(text).collect()), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_group_joins_again() {
    let deafened = Deafened::new().await;
    let mut watched = Watched::start(&deafened.settings, deafened.cluster.options(), committed_or_beginning);
    deafened.cluster.commit(numbered("a", 20)).await;
    watched.records(20).await;
    deafened.deafen(|| watched.control.is_down()).await;
    deafened.cluster.commit(["b".to_owned()]).await;
    let mut lost = Vec::new();
    let found = watched.find(|happening| match happening {
        Happening::Revoked(partitions, true) => {
            lost.extend(partitions);
            None
        }
        Happening::Record(record) => (text(&record) == "b").then_some(()),
        _ => None,
    });
    found.await;
    assert_eq!(lost.len(), 6, "once each: {lost:?}");
    assert!(!watched.control.is_down());
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_sends_again() {
    let deafened = Deafened::new().await;
    let mut settings = deafened.settings.clone();
    // A record may be in the hands of the deaf client for as long.
    settings.properties.insert("message.timeout.ms".to_owned(), "2000".to_owned());
    let producer = Producer::new(&settings).unwrap();
    let record = record(&deafened.cluster.topic(), "a");
    producer.send(&record).await.unwrap();
    deafened.hide_once().await;
    // In vain, as long as it is the same client.
    eventually(LONG, "a record is sent", async || producer.send(&record).await.ok()).await;
    producer.send(&record).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transactional_producer_is_known_as_disturbed() {
    let deafened = Deafened::new().await;
    let (settings, topic) = (deafened.settings.clone(), deafened.cluster.topic());
    let id = format!("{}-p", deafened.cluster.topics.prefix());
    let commit = |mut producer: TransactionalProducer, value: &'static str| {
        let record = record(&topic, value);
        blocking(move || {
            producer.begin().unwrap();
            producer.send(&record).unwrap();
            producer.commit().unwrap();
            producer
        })
    };
    let producer = blocking(move || {
        let mut producer = TransactionalProducer::new(&settings, &id, LONG).unwrap();
        producer.init(LONG).unwrap();
        producer
    })
    .await;
    let mut producer = commit(producer, "a").await;
    deafened.deafen(|| producer.was_disturbed()).await;
    let producer = blocking(move || {
        producer.renew(LONG).unwrap();
        producer
    })
    .await;
    assert!(!commit(producer, "b").await.was_disturbed());
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_find_answers_again() {
    let deafened = Deafened::new().await;
    let (admin, topic) = (Admin::new(&deafened.settings).unwrap(), deafened.cluster.topic());
    let backlog = Backlog::new(&deafened.settings, &deafened.cluster.group()).unwrap();
    assert_eq!(admin.partitions(&topic).await.unwrap(), Some(6));
    assert!(!backlog.look(&topic).await.unwrap().is_empty());
    deafened.kafka.hide_brokers_from(&deafened.settings.client_id);
    let (from_admin, from_backlog) = tokio::join!(admin.partitions(&topic), backlog.look(&topic));
    assert!(from_admin.is_err() && from_backlog.is_err(), "{from_admin:?} {from_backlog:?}");
    deafened.kafka.show_brokers_to(&deafened.settings.client_id);
    eventually(LONG, "the admin looks up", async || admin.partitions(&topic).await.ok()).await;
    eventually(LONG, "the backlog looks up", async || backlog.look(&topic).await.ok()).await;
}
