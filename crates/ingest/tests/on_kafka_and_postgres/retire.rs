//! Versions of flows that no job is on are forgotten, on Kafka too.

use test_kit::eventually;

use crate::stage::{Ingest, PATIENCE, ground};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_was_replaced_long_ago_goes_and_leaves_a_tombstone() {
    let ground = ground().await;
    ground.sql("insert into ingest.flows values ('order', 'old', -2, '{}', now() - interval '90 days')");
    ground.sql("insert into ingest.flows values ('order', 'older', -3, '{}', now() - interval '95 days')");
    ground.sql("update ingest.flows set applied_at = now() - interval '40 days' where revision > 0 and flow = 'order'");
    let ingest = Ingest::start(&ground, |_| {}).await;
    let tombstones = eventually(PATIENCE, "both are gone", async || {
        let records = ground.outbox(&ground.topics.flows());
        let gone = records.into_iter().filter(|record| record.value.is_none());
        let mut keys: Vec<String> = gone.map(|record| String::from_utf8(record.key.unwrap()).unwrap()).collect();
        keys.sort_unstable();
        (keys.len() == 2).then_some(keys)
    })
    .await;
    assert_eq!(tombstones, ["order@old", "order@older"]);
    assert_eq!(ground.sql("select count(*), min(revision) > 0 from ingest.flows"), "2|t");
    ingest.ready().await;
    ingest.stop().await;
}
