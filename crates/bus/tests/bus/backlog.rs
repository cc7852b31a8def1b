//! What waits for a group: counted in records, not offsets.

use std::time::{SystemTime, UNIX_EPOCH};

use bus::{Backlog, OffsetCommit, Waiting};
use test_kit::eventually;

use crate::kit::{Cluster, LONG, Watched, blocking, committed_or_beginning, next_offsets, numbered, record};

fn records(waiting: &[Waiting]) -> u64 {
    waiting.iter().map(|waiting| waiting.records).sum()
}

#[expect(clippy::disallowed_methods, reason = "records carry the broker's time, which is this machine's")]
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_counted_without_transaction_markers_and_the_oldest_is_known() {
    let cluster = Cluster::shared().await;
    let backlog = Backlog::new(&cluster.settings, &cluster.group()).unwrap();
    let empty = backlog.look(&cluster.topic()).await.unwrap();
    assert_eq!((empty.len(), records(&empty)), (6, 0));
    assert!(empty.iter().all(|waiting| waiting.oldest_ms.is_none() && waiting.offset == 0), "{empty:?}");

    let before = now_ms();
    for number in 0..5 {
        cluster.commit(numbered(&format!("wave-{number}"), 20)).await;
    }
    let waiting = backlog.look(&cluster.topic()).await.unwrap();
    assert_eq!(records(&waiting), 100, "{waiting:?}");
    let oldest = waiting.iter().filter_map(|waiting| waiting.oldest_ms).min().unwrap();
    assert!((before..=now_ms()).contains(&oldest), "{oldest}");
    assert_eq!(backlog.look("no-such-topic").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_does_not_wait_and_a_transaction_that_is_under_way_is_not_waited_for() {
    let cluster = Cluster::shared().await;
    let backlog = Backlog::new(&cluster.settings, &cluster.group()).unwrap();
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    cluster.commit(numbered("r", 50)).await;
    let taken = watched.records(50).await;
    let group = watched.control.group_metadata().unwrap();
    let note = |commit| OffsetCommit { metadata: Some("m1:Aw".to_owned()), ..commit };
    let offsets: Vec<OffsetCommit> = next_offsets(&taken).into_iter().map(note).collect();
    let mut producer = cluster.producer("mover").await;
    let (group, pending) = blocking(move || {
        producer.begin().unwrap();
        producer.send_offsets(&offsets, &group).unwrap();
        (group, (producer, offsets))
    })
    .await;
    let waiting = backlog.look(&cluster.topic()).await.unwrap();
    assert_eq!(records(&waiting), 50, "as committed so far");

    let (mut producer, offsets) = pending;
    let mut producer = blocking(move || (producer.commit().unwrap(), producer).1).await;
    // The coordinator answers a commit a moment before the offsets are to be seen. Then only markers are left.
    let waiting = eventually(LONG, "nothing waits any more", async || {
        Some(backlog.look(&cluster.topic()).await.unwrap()).filter(|waiting| records(waiting) == 0)
    })
    .await;
    for commit in &offsets {
        let found = waiting.iter().find(|found| found.place.partition == commit.partition).unwrap();
        assert_eq!((found.offset, found.metadata.as_str()), (commit.next_offset, "m1:Aw"));
    }
    // Seen to be empty before, and not any more.
    cluster.commit(["fresh".to_owned()]).await;
    assert_eq!(records(&backlog.look(&cluster.topic()).await.unwrap()), 1);
    blocking(move || {
        producer.begin().unwrap();
        producer.send_offsets(&offsets, &group).unwrap();
        producer.abort().unwrap();
    })
    .await;
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_is_estimated_and_what_is_not_committed_is_not_counted() {
    const RECORDS: u64 = 6_000;
    let cluster = Cluster::shared().await;
    cluster.commit(numbered("r", RECORDS as usize)).await;
    let mut producer = cluster.producer("slow").await;
    let topic = cluster.topic();
    let mut producer = blocking(move || {
        producer.begin().unwrap();
        for value in numbered("open", 2_000) {
            producer.send(&record(&topic, &value)).unwrap();
        }
        producer
    })
    .await;
    let backlog = Backlog::new(&cluster.settings, &cluster.group()).unwrap();
    let seen = records(&backlog.look(&cluster.topic()).await.unwrap());
    assert!(seen.abs_diff(RECORDS) < RECORDS / 100, "{seen}: one marker per partition is all that is between them");
    blocking(move || producer.abort().unwrap()).await;
}
