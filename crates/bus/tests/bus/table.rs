//! Tables and tails.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::admin::Admin;
use bus::{Inbound, Producer, Settings, Table, Tail};

use crate::kit::{Cluster, LONG, blocking, numbered, record, sorted, text};

fn values(records: &[Inbound]) -> Vec<String> {
    sorted(records.iter().map(text).collect())
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_reads_to_the_end_across_transaction_markers_and_then_follows() {
    let cluster = Cluster::shared().await;
    cluster.commit(numbered("a", 40)).await;
    let mut producer = cluster.producer("aborting").await;
    let topic = cluster.topic();
    blocking(move || {
        // Aborted records and their markers stand at the end of the log.
        producer.begin().unwrap();
        for value in numbered("aborted", 40) {
            producer.send(&record(&topic, &value)).unwrap();
        }
        producer.abort().unwrap();
    })
    .await;
    let (loaded, mut tail) = within(Table::load(&cluster.settings, &cluster.topic())).await.unwrap();
    assert_eq!(values(&loaded), sorted(numbered("a", 40)));
    cluster.commit(["b".to_owned()]).await;
    assert_eq!(values(&within(tail.next()).await.unwrap()), ["b"]);
    assert_eq!(values(&within(tail.read_to_end_now()).await.unwrap()), [""; 0], "at the end already");
    cluster.commit(numbered("c", 40)).await;
    let mut rest = Vec::new();
    while rest.len() < 40 {
        rest.extend(within(tail.read_to_end_now()).await.unwrap());
        assert_eq!(rest.len(), 40, "all that was visible when asked");
    }
    assert_eq!(values(&rest), sorted(numbered("c", 40)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_at_its_end_only_once_every_transaction_is_over_that_had_written_to_it() {
    let cluster = Cluster::shared().await;
    let (_, mut tail) = within(Table::load(&cluster.settings, &cluster.topic())).await.unwrap();
    let mut open = cluster.producer("open").await;
    let topic = cluster.topic();
    let open = blocking(move || {
        open.begin().unwrap();
        open.send(&record(&topic, "open")).unwrap();
        open
    })
    .await;
    // Its record is there, if nobody may read it yet.
    let properties = BTreeMap::from([("isolation.level".to_owned(), "read_uncommitted".to_owned())]);
    let dirty = Admin::new(&Settings { properties, ..cluster.settings.clone() }).unwrap();
    loop {
        let ends = within(dirty.end_offsets(&[cluster.topic()])).await.unwrap();
        if ends.values().sum::<i64>() > 0 {
            break;
        }
    }
    let asked = tokio::spawn(async move { (tail.read_to_end_now().await, tail) });
    cluster.commit(["behind".to_owned()]).await;
    let mut open = open;
    assert!(!asked.is_finished(), "one may still be committed");
    blocking(move || open.commit().unwrap()).await;
    let (records, _tail) = within(asked).await.unwrap();
    assert!(values(&records.unwrap()).contains(&"open".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_table_is_loaded_at_once() {
    let cluster = Cluster::shared().await;
    let (loaded, _tail) = within(Table::load(&cluster.settings, &cluster.topic())).await.unwrap();
    assert!(loaded.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_large_records_is_handed_over_in_small_batches() {
    let cluster = Cluster::shared().await;
    let large: Vec<String> = numbered("a", 20).into_iter().map(|name| name + &"x".repeat(300_000)).collect();
    cluster.commit(large.clone()).await;
    // The coordinator answers before its markers stand in all partitions.
    let topics = [cluster.topic()];
    let visible = async || {
        let ends = cluster.admin.end_offsets(&topics).await.ok()?;
        (ends.values().sum::<i64>() == cluster.written().await).then_some(())
    };
    test_kit::eventually(LONG, "the records are visible", visible).await;
    let (mut seen, mut largest) = (Vec::new(), 0);
    let each = |records: Vec<Inbound>| {
        largest = largest.max(records.iter().map(Inbound::size_bytes).sum::<usize>());
        seen.extend(records);
    };
    let topic = cluster.topic();
    let (starts, tail) = within(Table::stream_recent(&cluster.settings, &topic, 1_000, each)).await.unwrap();
    assert_eq!(values(&seen), sorted(large));
    assert!(largest < 1_400_000, "a batch of {largest} bytes");
    assert!(starts.iter().all(|start| *start == 0) && !starts.is_empty(), "{starts:?}");
    drop(tail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_sees_everything_that_comes_after_its_start_and_nothing_before() {
    let cluster = Cluster::shared().await;
    cluster.commit(numbered("old", 40)).await;
    let mut tail = within(Tail::start(&cluster.settings, &cluster.topic(), Duration::from_millis(50))).await.unwrap();
    cluster.commit(numbered("new", 40)).await;
    let mut seen = Vec::new();
    while seen.len() < 40 {
        seen.extend(within(tail.next()).await.unwrap());
    }
    assert_eq!(values(&seen), sorted(numbered("new", 40)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_waits_for_its_topic() {
    let cluster = Cluster::shared().await;
    let topic = cluster.topics.steps("later");
    let (settings, name) = (cluster.settings.clone(), topic.clone());
    let loading = tokio::spawn(async move { Table::load(&settings, &name).await });
    cluster.admin.ensure_queue(&cluster.topics, "later", &cluster.group(), None).await.unwrap();
    let (_, mut tail) = within(loading).await.unwrap().unwrap();
    Producer::new(&cluster.settings).unwrap().send(&record(&topic, "x")).await.unwrap();
    assert_eq!(values(&within(tail.next()).await.unwrap()), ["x"]);
}
