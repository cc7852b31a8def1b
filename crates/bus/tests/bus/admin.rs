//! Administration.

use std::collections::BTreeMap;

use bus::{Error, Producer, TopicPartition};

use crate::kit::{Cluster, Watched, committed_or_beginning, numbered, record};

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_once_with_the_declared_settings() {
    let cluster = Cluster::shared().await;
    let again = cluster.admin.create_topics(&cluster.topics, &["q".to_owned()].into(), None).await.unwrap();
    assert!(again.is_empty(), "{again:?}");
    assert_eq!(cluster.admin.partitions(&cluster.topics.events()).await.unwrap(), Some(6));
    assert_eq!(cluster.admin.partitions(&cluster.topics.flows()).await.unwrap(), Some(1));
    assert_eq!(cluster.admin.max_message_bytes(&cluster.topics.events()).await.unwrap(), 1_048_576);
    assert_eq!(cluster.admin.max_message_bytes(&cluster.topics.dead_letters()).await.unwrap(), 1_114_112);
    assert!(!cluster.admin.topic_exists("no-such-topic").await.unwrap());
    cluster.admin.delete_topics(cluster.topics.prefix()).await.unwrap();
    test_kit::eventually(crate::kit::LONG, "the topics are gone", async || {
        (!cluster.admin.topic_exists(&cluster.topics.events()).await.unwrap()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn initial_offsets_are_committed_once_also_while_the_group_is_at_work() {
    let cluster = Cluster::shared().await;
    let (group, topics) = (cluster.group(), [cluster.topic(), cluster.topics.events()]);
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    watched.assigned().await;
    assert_eq!(cluster.admin.commit_initial_offsets(&group, &topics).await.unwrap(), 12);
    assert_eq!(cluster.admin.commit_initial_offsets(&group, &topics).await.unwrap(), 0);
    let committed = cluster.admin.committed(&group, &topics).await.unwrap();
    assert!(committed.len() == 12 && committed.values().all(|offset| *offset == 0), "{committed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_commit_initial_offsets_at_once_commit_them_once() {
    let cluster = Cluster::shared().await;
    let (group, topics) = (cluster.group(), [cluster.topic()]);
    let commits = (0..6).map(|_| {
        let (admin, group, topics) = (cluster.admin.clone(), group.clone(), topics.clone());
        tokio::spawn(async move { admin.commit_initial_offsets(&group, &topics).await })
    });
    let commits: Vec<_> = commits.collect();
    let mut committed = 0;
    for commit in commits {
        committed += commit.await.unwrap().unwrap();
    }
    assert_eq!(committed, 6, "each partition by one of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_were_lost_are_not_made_anew_unasked() {
    let cluster = Cluster::shared().await;
    let (group, topics) = (cluster.group(), [cluster.topic()]);
    cluster.commit(numbered("r", 30)).await;
    // The group has read them, and Kafka has forgotten how far.
    let refused = cluster.admin.commit_initial_offsets(&group, &topics).await.unwrap_err();
    let refused = std::error::Error::source(&refused).unwrap().to_string();
    assert!(refused.contains("meanwhile migrate --offsets-from-log-start"), "{refused}");
    assert!(cluster.admin.committed(&group, &topics).await.unwrap().is_empty());
    assert_eq!(cluster.admin.begin_at_log_start(&group, &topics).await.unwrap(), 6);
    assert_eq!(cluster.admin.commit_initial_offsets(&group, &topics).await.unwrap(), 0);
}

/// Chance decides which of both is first, so there are several.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_the_relay_fills_before_its_offsets_are_there_begins_all_the_same() {
    let cluster = Cluster::shared().await;
    let group = cluster.group();
    for queue in (0..8).map(|number| format!("quick-{number}")) {
        let (topic, producer) = (cluster.topics.steps(&queue), Producer::new(&cluster.settings).unwrap());
        let filling = async {
            // Refused until the topic is there.
            while producer.send(&record(&topic, "slip")).await.is_err() {}
        };
        let (created, ()) = tokio::join!(cluster.admin.ensure_queue(&cluster.topics, &queue, &group, None), filling);
        assert!(created.unwrap());
        let committed = cluster.admin.committed(&group, &[topic]).await.unwrap();
        assert!(committed.len() == 6 && committed.values().all(|offset| *offset == 0), "{committed:?}");
    }
}

/// Waits until all that is written may be read: Kafka makes that so soon after a commit, not with it. Returns the ends.
async fn until_readable(cluster: &Cluster) -> BTreeMap<TopicPartition, i64> {
    loop {
        let ends = cluster.admin.end_offsets(&[cluster.topic()]).await.unwrap();
        if ends.values().sum::<i64>() >= cluster.written().await {
            return ends;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_told_of_the_partitions_that_answer_whatever_the_others_do() {
    let cluster = Cluster::shared().await;
    cluster.commit(numbered("r", 30)).await;
    let all = until_readable(&cluster).await;
    let mut places: Vec<TopicPartition> = all.keys().cloned().collect();
    places.insert(0, TopicPartition::new(cluster.topic(), 77));
    places.insert(3, TopicPartition::new("no-such-topic", 0));
    assert_eq!(cluster.admin.ends_of(&places, crate::kit::LONG).await, all);
    assert!(cluster.admin.ends_of(&[], crate::kit::LONG).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_counts_from_the_groups_offset_and_trimming_moves_the_start() {
    let cluster = Cluster::shared().await;
    let topics = [cluster.topic()];
    cluster.admin.commit_initial_offsets(&cluster.group(), &topics).await.unwrap();
    cluster.commit(numbered("r", 100)).await;
    until_readable(&cluster).await;
    let lag = cluster.admin.lag(&cluster.group(), &topics).await.unwrap();
    let total: i64 = lag.values().sum();
    assert!((100..=112).contains(&total), "records, and a marker per partition at most twice: {total}");
    let place = TopicPartition::new(cluster.topic(), 0);
    cluster.admin.delete_records(&[(place.clone(), 3)]).await.unwrap();
    assert_eq!(cluster.admin.offsets(&topics).await.unwrap()[&place].0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_send_says_where_it_went_and_why_it_did_not() {
    let cluster = Cluster::shared().await;
    let producer = Producer::new(&cluster.settings).unwrap();
    // Java's murmur2 of "customer-1" over 6 partitions; librdkafka's own default would differ.
    let keyed = bus::Record { key: Some(b"customer-1".to_vec()), ..record(&cluster.topic(), "x") };
    let (partition, offset) = producer.send(&keyed).await.unwrap();
    assert_eq!((partition, offset), (murmur2_partition(b"customer-1", 6), 0));
    let large = record(&cluster.topic(), &"x".repeat(1_100_000));
    assert!(matches!(producer.send(&large).await, Err(Error::TooLarge { .. })));
    let lost = producer.send(&record("no-such-topic", "x")).await;
    assert!(matches!(lost, Err(Error::TopicMissing(_))), "{lost:?}");
}

/// Kafka's `Utils.murmur2` and `toPositive`, written down from the protocol's description.
fn murmur2_partition(key: &[u8], partitions: i32) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let mut chunks = key.chunks_exact(4);
    for chunk in &mut chunks {
        let mut word = u32::from_le_bytes(chunk.try_into().unwrap());
        word = word.wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    for (index, byte) in rest.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    (hash & 0x7fff_ffff) as i32 % partitions
}
