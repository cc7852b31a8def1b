//! The follower: positions kept elsewhere, in the way that a service's database keeps them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::{Follower, FollowerOptions, RecordBatch, TopicPartition};

use crate::kit::{Cluster, LONG, numbered, sorted, text};

type Stored = Arc<Mutex<BTreeMap<TopicPartition, i64>>>;

fn follow(cluster: &Cluster, stored: &Stored, options: impl FnOnce(&mut FollowerOptions)) -> Follower {
    let stored = Arc::clone(stored);
    let mut follower = FollowerOptions::new(cluster.group(), [cluster.topic()]);
    follower.session_timeout = Duration::from_secs(6);
    options(&mut follower);
    Follower::start(&cluster.settings, follower, move |places| {
        let stored = stored.lock().unwrap();
        let found = places.iter().map(|place| stored.get(place).copied()).collect();
        async move { Ok(found) }
    })
    .unwrap()
}

async fn next(follower: &mut Follower) -> RecordBatch {
    tokio::time::timeout(LONG, follower.next_batch()).await.expect("a batch comes").unwrap()
}

/// Compare-and-set for every part, as the database does it. The values of what was applied.
fn apply(stored: &Stored, batch: &RecordBatch) -> Vec<String> {
    let mut stored = stored.lock().unwrap();
    let mut values = Vec::new();
    for part in &batch.parts {
        let place = TopicPartition::new(part.topic.clone(), part.partition);
        assert_eq!(stored.get(&place).copied().unwrap_or(0), part.first_offset, "{place}");
        stored.insert(place, part.next_offset);
        values.extend(part.records.iter().map(text));
    }
    values
}

async fn read(follower: &mut Follower, stored: &Stored, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    while values.len() < count {
        values.extend(apply(stored, &next(follower).await));
    }
    sorted(values)
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_join_without_gaps_across_transaction_markers_and_restarts() {
    let cluster = Cluster::shared().await;
    let stored = Stored::default();
    let mut follower = follow(&cluster, &stored, |_| {});
    for round in ["a", "b", "c"] {
        cluster.commit(numbered(round, 50)).await;
        assert_eq!(read(&mut follower, &stored, 50).await, sorted(numbered(round, 50)));
    }
    follower.stop(LONG).await;
    cluster.commit(numbered("d", 50)).await;
    let mut follower = follow(&cluster, &stored, |_| {});
    assert_eq!(read(&mut follower, &stored, 50).await, sorted(numbered("d", 50)));
    let committed = cluster.admin.committed(&cluster.group(), &[cluster.topic()]).await.unwrap();
    assert!(committed.is_empty(), "positions are not Kafka's to keep");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewound_partition_is_read_again_from_the_stored_position() {
    let cluster = Cluster::shared().await;
    let stored = Stored::default();
    let mut follower = follow(&cluster, &stored, |_| {});
    cluster.commit(numbered("a", 60)).await;
    read(&mut follower, &stored, 60).await;
    // Another has moved partition 0 back to its start; for this one that is a conflict.
    stored.lock().unwrap().insert(TopicPartition::new(cluster.topic(), 0), 0);
    follower.rewind(&cluster.topic(), 0);
    let batch = next(&mut follower).await;
    assert_eq!((batch.parts[0].partition, batch.parts[0].first_offset), (0, 0));
    assert!(!apply(&stored, &batch).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_that_cannot_be_read_are_asked_for_again_and_never_guessed() {
    let cluster = Cluster::shared().await;
    cluster.commit(numbered("a", 30)).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let options = FollowerOptions::new(cluster.group(), [cluster.topic()]);
    let mut follower = Follower::start(&cluster.settings, options, move |places| {
        let failed = counted.fetch_add(1, Ordering::Relaxed) < 2;
        async move {
            anyhow::ensure!(!failed, "the database is down");
            Ok(vec![None; places.len()])
        }
    })
    .unwrap();
    assert_eq!(read(&mut follower, &Stored::default(), 30).await, sorted(numbered("a", 30)));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_stuck_bounds_what_is_kept_and_loses_nothing() {
    let cluster = Cluster::shared().await;
    let stored = Stored::default();
    let mut follower = follow(&cluster, &stored, |options| options.batch_records_max = 10);
    let first = {
        cluster.commit(numbered("a", 500)).await;
        next(&mut follower).await
    };
    // Long enough for the follower to pause its partitions.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut values = apply(&stored, &first);
    while values.len() < 500 {
        let batch = next(&mut follower).await;
        assert!(batch.len() <= 10, "{} records in a batch", batch.len());
        values.extend(apply(&stored, &batch));
    }
    assert_eq!(sorted(values), sorted(numbered("a", 500)));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_followers_share_the_partitions_and_apply_each_record_once() {
    let cluster = Cluster::shared().await;
    let stored = Stored::default();
    let mut first = follow(&cluster, &stored, |_| {});
    cluster.commit(numbered("a", 100)).await;
    let mut values = read(&mut first, &stored, 100).await;
    let mut second = follow(&cluster, &stored, |_| {});
    test_kit::eventually(LONG, "both have partitions", async || {
        (first.assignment().len() == 3 && second.assignment().len() == 3).then_some(())
    })
    .await;
    cluster.commit(numbered("b", 100)).await;
    while values.len() < 200 {
        let batch = tokio::select! {
            batch = next(&mut first) => batch,
            batch = next(&mut second) => batch,
        };
        values.extend(apply(&stored, &batch));
    }
    assert_eq!(sorted(values), sorted([numbered("a", 100), numbered("b", 100)].concat()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_cannot_be_read_is_told_and_passed_over_once_the_stored_position_is_behind_it() {
    let gap = crate::unreadable::gap().await;
    let stored = Stored::default();
    let mut follower = follow(&gap.cluster, &stored, |_| {});
    assert_eq!(read(&mut follower, &stored, 3).await, ["before"; 3]);
    let told = test_kit::eventually(LONG, "it is told", async || follower.unreadable().pop()).await;
    let remedy = format!("meanwhile topics skip --topic {} --partition {}", gap.place.topic, gap.place.partition);
    assert!(told.contains(&remedy), "{told}");
    stored.lock().unwrap().insert(gap.place.clone(), gap.spoilt.end);
    assert_eq!(read(&mut follower, &stored, 3).await, ["behind"; 3]);
    assert_eq!(follower.unreadable(), Vec::<String>::new());
    follower.stop(LONG).await;
}
