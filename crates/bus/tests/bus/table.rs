//! Tables and tails.

use std::time::Duration;

use bus::{Inbound, Producer, Table, Tail};

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
async fn an_empty_table_is_loaded_at_once() {
    let cluster = Cluster::shared().await;
    let (loaded, _tail) = within(Table::load(&cluster.settings, &cluster.topic())).await.unwrap();
    assert!(loaded.is_empty());
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
