//! Rows arrive once, whole, and in commit order.

use relay::seam::{Seam, Seams};
use store::outbox;
use store::reader::Way;

use crate::stage::{QUEUE, Stage, cut_at, either_way, number};

either_way!(
    rows_arrive_once_as_they_were_written,
    a_rolled_back_row_never_arrives,
    a_commit_larger_than_a_kafka_transaction_arrives_once_whatever_cuts_it,
    a_relay_that_is_started_again_goes_on_where_it_was,
    it_delivers_to_the_in_process_broker_too,
);

async fn rows_arrive_once_as_they_were_written(way: Way) {
    let stage = Stage::by(way).await;
    let mut relay = stage.start();
    stage.commit(0..5).await;
    stage.commit([5]).await;
    relay.relayed(6).await;
    stage.assert_once_in_order(6).await;
    let records = stage.read(&stage.topics.steps(QUEUE)).await;
    let five = records.iter().find(|record| number(record) == 5).unwrap();
    assert_eq!((five.key.as_deref(), &five.headers), (Some(&b"k2"[..]), &stage.record(5, 3).headers));
    let position = stage.position().await;
    assert_eq!((position.relayed, position.partial), (6, None));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_is_that_of_the_commits_not_of_the_beginnings() {
    let stage = Stage::new().await;
    let mut relay = stage.start();
    let rows = |numbers: std::ops::Range<u64>| numbers.map(|number| stage.record(number, 1)).collect::<Vec<_>>();
    let mut early = stage.pool.begin().await.unwrap();
    outbox::append(&mut early, &rows(3..5)).await.unwrap();
    let mut late = stage.pool.begin().await.unwrap();
    outbox::append(&mut late, &rows(0..3)).await.unwrap();
    outbox::append(&mut early, &rows(5..6)).await.unwrap();
    late.commit().await.unwrap();
    relay.relayed(3).await;
    early.commit().await.unwrap();
    relay.relayed(6).await;
    stage.assert_once_in_order(6).await;
    relay.stop().await;
}

async fn a_rolled_back_row_never_arrives(way: Way) {
    let stage = Stage::by(way).await;
    let mut relay = stage.start();
    let mut tx = stage.pool.begin().await.unwrap();
    outbox::append(&mut tx, &[stage.record(7, 1)]).await.unwrap();
    tx.rollback().await.unwrap();
    stage.commit(0..2).await;
    relay.relayed(2).await;
    stage.assert_once_in_order(2).await;
    relay.stop().await;
}

async fn a_commit_larger_than_a_kafka_transaction_arrives_once_whatever_cuts_it(way: Way) {
    for seam in [Seam::BeforeCommit, Seam::AfterCommit] {
        let mut stage = Stage::by(way).await;
        stage.config.transaction_rows_max = 300;
        stage.commit(0..3_000).await;
        stage.commit(3_000..3_001).await;
        let mut relay = stage.start_with(cut_at(seam, 3));
        let position = relay.relayed(3_001).await;
        assert_eq!((position.relayed, position.partial), (3_001, None));
        stage.assert_once_in_order(3_001).await;
        relay.stop().await;
    }
}

async fn a_relay_that_is_started_again_goes_on_where_it_was(way: Way) {
    let stage = Stage::by(way).await;
    for round in 0..4 {
        let mut relay = stage.start_with(Seams::default());
        stage.commit(round * 10..round * 10 + 10).await;
        relay.relayed(round * 10 + 10).await;
        relay.stop().await;
    }
    stage.assert_once_in_order(40).await;
}

async fn it_delivers_to_the_in_process_broker_too(way: Way) {
    let kafka = bus::Settings::of_in_process(bus::InProcess::start().unwrap());
    let stage = Stage::with(kafka, test_kit::postgres_database().await, way).await;
    for round in 0..2 {
        let mut relay = stage.start();
        stage.commit(round * 10..round * 10 + 10).await;
        relay.relayed(round * 10 + 10).await;
        relay.stop().await;
    }
    stage.assert_once_in_order(20).await;
}
