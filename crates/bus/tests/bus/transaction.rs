//! Transactions: all or nothing, fenced, with offsets and what stands beside them.

use bus::{OffsetCommit, Table, TransactionalProducer, TxError};
use events::headers::Headers;
use test_kit::{END_TXN, KafkaOptions, PRODUCE, ProxiedKafka};

use crate::kit::{
    Cluster, Happening, LONG, Watched, blocking, committed_or_beginning, next_offsets, numbered, record, sorted, text,
};

#[tokio::test(flavor = "multi_thread")]
async fn records_are_seen_only_after_the_commit_and_never_after_an_abort() {
    let cluster = Cluster::shared().await;
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    watched.assigned().await;
    let mut producer = cluster.producer("p").await;
    let topic = cluster.topic();
    let mut producer = blocking(move || {
        producer.begin().unwrap();
        for value in numbered("aborted", 20) {
            producer.send(&record(&topic, &value)).unwrap();
        }
        producer.abort().unwrap();
        producer.begin().unwrap();
        for value in numbered("kept", 20) {
            producer.send(&record(&topic, &value)).unwrap();
        }
        producer
    })
    .await;
    // Not committed yet, but acknowledged by the broker: a plain record behind it would be readable.
    let plain = bus::Producer::new(&cluster.settings).unwrap();
    plain.send(&record(&cluster.topics.progress(), "x")).await.unwrap();
    assert!(!watched.so_far().iter().any(|happening| matches!(happening, Happening::Record(_))));
    blocking(move || producer.commit().unwrap()).await;
    let records = watched.records(20).await;
    assert_eq!(sorted(records.iter().map(crate::kit::text).collect()), sorted(numbered("kept", 20)));
    assert_eq!(records[0].headers, Headers::from([("h", Some("1")), ("none", None)]));
    assert!(records[0].timestamp_ms > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_producer_with_the_same_id_fences_the_first() {
    let cluster = Cluster::shared().await;
    let mut first = cluster.producer("same").await;
    let topic = cluster.topic();
    let mut first = blocking(move || {
        first.begin().unwrap();
        first.send(&record(&topic, "of the zombie")).unwrap();
        first
    })
    .await;
    let mut second = cluster.producer("same").await;
    let mut outcome = blocking(move || (first.commit(), first)).await;
    if let Err(TxError::Abortable(_)) = outcome.0 {
        // The record itself may be what is refused; then the abort meets the fence.
        outcome = blocking(move || (outcome.1.abort(), outcome.1)).await;
    }
    assert_eq!(outcome.0, Err(TxError::Fenced));
    let topic = cluster.topic();
    blocking(move || {
        second.begin().unwrap();
        second.send(&record(&topic, "of the heir")).unwrap();
        second.commit().unwrap();
    })
    .await;
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    assert_eq!(watched.values(1).await, ["of the heir"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_and_their_metadata_travel_in_the_transaction_and_come_back_when_assigned() {
    let cluster = Cluster::shared().await;
    cluster.commit(numbered("in", 30)).await;
    let mut first = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    let records = first.records(30).await;
    let bitmap = "b".repeat(4000);
    let commits: Vec<OffsetCommit> = next_offsets(&records)
        .into_iter()
        .map(|commit| OffsetCommit { metadata: Some(bitmap.clone()), ..commit })
        .collect();
    let group = first.control.group_metadata().unwrap();
    let mut producer = cluster.producer("mover").await;
    let (sent, topic) = (commits.clone(), cluster.topics.events());
    blocking(move || {
        producer.begin().unwrap();
        producer.send(&record(&topic, "out")).unwrap();
        producer.send_offsets(&sent, &group).unwrap();
        producer.commit().unwrap();
    })
    .await;
    first.stop().await;
    let mut second = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    let assigned = second.assigned().await;
    assert_eq!(assigned.len(), 6);
    for commit in commits {
        let found = assigned.iter().find(|found| found.partition == commit.partition).unwrap();
        assert_eq!((found.committed, &found.metadata), (Some(commit.next_offset), &bitmap));
    }
    cluster.commit(["fresh".to_owned()]).await;
    assert_eq!(second.values(1).await, ["fresh"], "what was committed is not read again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_with_an_old_membership_is_refused_and_must_be_aborted() {
    let cluster = Cluster::shared().await;
    cluster.commit(numbered("in", 5)).await;
    let mut zombie = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    let records = zombie.records(5).await;
    let group = zombie.control.group_metadata().unwrap();
    zombie.stop().await;
    let mut producer = cluster.producer("mover").await;
    let topic = cluster.topics.events();
    let outcome = blocking(move || {
        producer.begin().unwrap();
        producer.send(&record(&topic, "out")).unwrap();
        let outcome = producer.send_offsets(&next_offsets(&records), &group);
        producer.abort().unwrap();
        producer.begin().unwrap();
        producer.commit().unwrap();
        outcome
    })
    .await;
    assert!(matches!(outcome, Err(TxError::Abortable(_))), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_refused_and_one_without_a_topic_aborts_and_the_next_transaction_commits() {
    let cluster = Cluster::shared().await;
    let large = record(&cluster.topic(), &"x".repeat(1_200_000));
    let lost = record("no-such-topic", "x");
    let good = record(&cluster.topic(), "good");
    let mut producer = cluster.producer("p").await;
    for (bad, to_blame) in [(large, true), (lost, false)] {
        let good = good.clone();
        let (outcome, returned) = blocking(move || {
            producer.begin().unwrap();
            producer.send(&good).unwrap();
            let outcome = producer.send(&bad).and_then(|()| producer.commit());
            producer.abort().unwrap();
            (outcome, producer)
        })
        .await;
        match outcome {
            Err(TxError::Refused(_)) if to_blame => {}
            Err(TxError::Abortable(_)) if !to_blame => {}
            other => panic!("{other:?}"),
        }
        producer = returned;
    }
    blocking(move || {
        producer.begin().unwrap();
        producer.send(&good).unwrap();
        producer.commit().unwrap();
    })
    .await;
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    assert_eq!(watched.values(1).await, ["good"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_tells_of_a_record_that_was_refused_whether_by_the_client_or_by_the_broker() {
    let cluster = Cluster::shared().await;
    let mut producer = cluster.producer("p").await;
    // The client takes 3 MiB, the topic 1 MiB; a record has its text as key and value.
    let records = [1_800_000, 600_000].map(|bytes| record(&cluster.topic(), &"x".repeat(bytes)));
    for (bad, refused_at_once) in records.into_iter().zip([true, false]) {
        let (sent, cause, returned) = blocking(move || {
            producer.begin().unwrap();
            let sent = producer.send(&bad);
            let _ = sent.clone().and_then(|()| producer.commit());
            (sent, producer.abort_with_cause().unwrap(), producer)
        })
        .await;
        assert_eq!(sent.is_err(), refused_at_once, "{sent:?}");
        assert!(cause.is_some());
        producer = returned;
    }
}

/// Begins a transaction, takes the id over first where that is due, and waits until the broker has its record.
async fn begin_with(cluster: &Cluster, mut producer: TransactionalProducer, value: &str) -> TransactionalProducer {
    let written = cluster.written().await;
    let record = record(&cluster.topic(), value);
    let producer = blocking(move || {
        if producer.was_disturbed() {
            producer.renew(LONG).unwrap();
        }
        producer.begin().unwrap();
        producer.send(&record).unwrap();
        producer
    })
    .await;
    let there = async || (cluster.written().await > written).then_some(());
    test_kit::eventually(LONG, "the broker has the record", there).await;
    producer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_reaches_the_broker_late_does_not_end_the_next_transaction() {
    let kafka = ProxiedKafka::start(KafkaOptions::default()).await.unwrap();
    let cluster = Cluster::at(kafka.brokers()).await;
    let producer = cluster.producer("p").await;
    let mut producer = begin_with(&cluster, producer, "first").await;
    let held = kafka.hold(END_TXN);
    let producer = blocking(move || {
        // The connection is cut off; on the next one the broker commits.
        producer.commit().unwrap();
        producer
    })
    .await;
    let held = held.await.unwrap();
    let mut producer = begin_with(&cluster, producer, "second").await;
    held.release().await.unwrap();
    blocking(move || producer.abort().unwrap()).await;
    let (records, _) = Table::load(&cluster.settings, &cluster.topic()).await.unwrap();
    assert_eq!(records.iter().map(text).collect::<Vec<_>>(), ["first"]);
}

/// Kafka's numbers for a producer whose id has been taken over.
const FENCED: [i16; 2] = [47, 90];

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_reaches_the_broker_late_does_not_enter_the_next_transaction() {
    let kafka = ProxiedKafka::start(KafkaOptions::default()).await.unwrap();
    let cluster = Cluster::at(kafka.brokers()).await;
    let mut producer = cluster.producer("p").await;
    let held = kafka.hold(PRODUCE);
    let first = record(&cluster.topic(), "first");
    let producer = blocking(move || {
        producer.begin().unwrap();
        // The connection is cut off; on the next one the broker gets the record, and the transaction is not trusted.
        let outcome = producer.send(&first).and_then(|()| producer.commit());
        assert!(matches!(outcome, Err(TxError::Abortable(_))), "{outcome:?}");
        producer.abort().unwrap();
        producer
    })
    .await;
    let held = held.await.unwrap();
    let mut producer = begin_with(&cluster, producer, "second").await;
    let error = held.release_produce().await.unwrap();
    assert!(FENCED.contains(&error), "the broker took the late record, or refused it by chance: {error}");
    blocking(move || producer.commit().unwrap()).await;
    let (records, _) = Table::load(&cluster.settings, &cluster.topic()).await.unwrap();
    assert_eq!(records.iter().map(text).collect::<Vec<_>>(), ["second"]);
}
