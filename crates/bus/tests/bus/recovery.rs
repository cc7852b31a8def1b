//! The broker is killed and comes back: everything goes on by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use bus::{ConsumerError, Table, Tail, TransactionalProducer, TxError};
use test_kit::{Kafka, KafkaOptions};

use crate::kit::{
    Cluster, Happening, LONG, Watched, blocking, committed_or_beginning, next_offsets, numbered, record, sorted, text,
};

/// True once "after" is committed; the broker may be away.
fn try_to_commit(producer: &mut TransactionalProducer, topic: &str) -> bool {
    if producer.was_disturbed() {
        producer.renew(LONG).unwrap();
    }
    producer.begin().unwrap();
    let sent = numbered("after", 50).iter().try_for_each(|value| producer.send(&record(topic, value)));
    // Abortable: the transaction alone is spoilt. Fatal: the broker had not noted the end of the last transaction when
    // it was killed, and refuses this one, or even its abort.
    let outcome = match sent.and_then(|()| producer.commit()) {
        Err(TxError::Abortable(_)) => producer.abort().map(|()| false),
        outcome => outcome.map(|()| true),
    };
    match outcome {
        Err(TxError::Fatal(_)) => producer.renew(LONG).map(|()| false).unwrap(),
        outcome => outcome.unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_is_reported_once_and_everything_goes_on_when_it_is_back() {
    let mut kafka = Kafka::start(KafkaOptions::to_be_killed()).await.unwrap();
    let cluster = Cluster::at(kafka.brokers()).await;
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    watched.assigned().await;
    let mut tail = Tail::start(&cluster.settings, &cluster.topic(), Duration::from_millis(100)).await.unwrap();
    let (_, mut table) = Table::load(&cluster.settings, &cluster.topic()).await.unwrap();
    let mut producer = cluster.producer("p").await;
    cluster.commit(numbered("before", 50)).await;
    let commits = next_offsets(&watched.records(50).await);
    let group = watched.control.group_metadata().unwrap();
    let mut producer = blocking(move || {
        producer.begin().unwrap();
        producer.send_offsets(&commits, &group).unwrap();
        producer.commit().unwrap();
        producer
    })
    .await;
    kafka.kill9();
    let down = watched
        .find(|happening| match happening {
            Happening::Error(error) => Some(error),
            _ => None,
        })
        .await;
    assert!(matches!(down, ConsumerError::Unavailable(_)), "{down}");
    assert!(watched.control.is_down());
    // A transaction that begins now ends once the broker is back: committed, or to be aborted; never in between.
    let topic = cluster.topic();
    let sending = tokio::spawn(blocking(move || while !try_to_commit(&mut producer, &topic) {}));
    kafka.restart().await.unwrap();
    sending.await.unwrap();
    // The group may have lost us meanwhile; then what it had not committed comes again.
    let mut seen = BTreeSet::new();
    while seen.len() < 50 {
        match watched.next().await {
            Happening::Record(record) => seen.insert(text(&record)),
            Happening::Error(error) => panic!("told a second time: {error}"),
            _ => continue,
        };
    }
    assert_eq!(seen.into_iter().collect::<Vec<String>>(), sorted(numbered("after", 50)));
    assert!(!watched.control.is_down());
    let mut tailed = Vec::new();
    while tailed.len() < 100 {
        tailed.extend(tokio::time::timeout(LONG, tail.next()).await.unwrap().unwrap().iter().map(text));
    }
    assert_eq!(sorted(tailed), sorted([numbered("before", 50), numbered("after", 50)].concat()));
    let rest = tokio::time::timeout(LONG, table.read_to_end_now()).await.unwrap().unwrap();
    assert_eq!(rest.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_stops_although_the_broker_is_gone() {
    let mut kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let cluster = Cluster::at(kafka.brokers()).await;
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    watched.assigned().await;
    kafka.kill9();
    watched.stop().await;
}
