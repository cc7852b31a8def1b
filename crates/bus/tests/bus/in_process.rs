//! The in-process broker: the same calls, no group.

use std::collections::BTreeSet;
use std::time::Duration;

use bus::admin::Admin;
use bus::{Follower, FollowerOptions, InProcess, OffsetCommit, Settings, Table, Tail, TransactionalProducer};
use events::topic::Topics;

use crate::kit::{LONG, Watched, blocking, committed_or_beginning, next_offsets, numbered, record, sorted};

async fn dev() -> (Settings, Admin, Topics) {
    let settings = Settings::of_in_process(InProcess::start().unwrap());
    let admin = Admin::new(&settings).unwrap();
    let topics = Topics::new(test_kit::prefix());
    let created = admin.create_topics(&topics, &BTreeSet::from(["q".to_owned()]), None).await.unwrap();
    assert_eq!(created.len(), 12);
    (settings, admin, topics)
}

#[tokio::test(flavor = "multi_thread")]
async fn consume_transform_produce_works_and_a_second_consumer_goes_on_where_the_first_committed() {
    let (settings, admin, topics) = dev().await;
    let topic = topics.steps("q");
    assert_eq!(admin.commit_initial_offsets("g", std::slice::from_ref(&topic)).await.unwrap(), 6);
    let producer = bus::Producer::new(&settings).unwrap();
    for value in numbered("in", 30) {
        producer.send(&record(&topic, &value)).await.unwrap();
    }
    let options = bus::ConsumerOptions::new("g", [topic.clone()]);
    let mut first = Watched::start(&settings, options.clone(), committed_or_beginning);
    let records = first.records(30).await;
    let group = first.control.group_metadata().unwrap();
    let commits: Vec<OffsetCommit> = next_offsets(&records)
        .into_iter()
        .map(|commit| OffsetCommit { metadata: Some("bits".to_owned()), ..commit })
        .collect();
    let (events, sender) = (topics.events(), settings.clone());
    blocking(move || {
        let mut producer = TransactionalProducer::new(&sender, "t", Duration::from_secs(10)).unwrap();
        producer.init(LONG).unwrap();
        producer.begin().unwrap();
        producer.send(&record(&events, "out")).unwrap();
        producer.send_offsets(&commits, &group).unwrap();
        producer.commit().unwrap();
    })
    .await;
    first.stop().await;
    let mut second = Watched::start(&settings, options, committed_or_beginning);
    let assigned = second.assigned().await;
    assert!(assigned.iter().any(|place| place.metadata == "bits"), "{assigned:?}");
    producer.send(&record(&topic, "fresh")).await.unwrap();
    assert_eq!(second.values(1).await, ["fresh"]);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_tables_and_tails_work_too() {
    let (settings, _admin, topics) = dev().await;
    let topic = topics.steps("q");
    let producer = bus::Producer::new(&settings).unwrap();
    for value in numbered("a", 20) {
        producer.send(&record(&topic, &value)).await.unwrap();
    }
    let options = FollowerOptions::new("f", [topic.clone()]);
    let none = |places: Vec<bus::TopicPartition>| async move { Ok(vec![None; places.len()]) };
    let mut follower = Follower::start(&settings, options, none).unwrap();
    let mut followed = 0;
    while followed < 20 {
        followed += tokio::time::timeout(LONG, follower.next_batch()).await.unwrap().unwrap().len();
    }
    let (loaded, mut table) = tokio::time::timeout(LONG, Table::load(&settings, &topic)).await.unwrap().unwrap();
    assert_eq!(sorted(loaded.iter().map(crate::kit::text).collect()), sorted(numbered("a", 20)));
    let mut tail = Tail::start(&settings, &topic, Duration::from_millis(20)).await.unwrap();
    producer.send(&record(&topic, "b")).await.unwrap();
    let next = tokio::time::timeout(LONG, tail.next()).await.unwrap().unwrap();
    assert_eq!(crate::kit::text(&next[0]), "b");
    let rest = tokio::time::timeout(LONG, table.read_to_end_now()).await.unwrap().unwrap();
    assert_eq!(rest.len(), 1);
}
