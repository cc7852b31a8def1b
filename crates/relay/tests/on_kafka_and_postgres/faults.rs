//! After any cut, kill or restart, no row is lost and none comes twice.

use relay::seam::Seam;
use store::reader::Way;
use test_kit::{Kafka, KafkaOptions, Postgres, PostgresOptions};

use crate::child;
use crate::stage::{Stage, cut_at, either_way};

either_way!(
    a_session_cut_off_at_any_seam_loses_and_repeats_nothing,
    a_killed_relay_loses_and_repeats_nothing,
    what_postgres_sends_again_after_a_crash_is_skipped,
    kafka_may_be_killed_and_started_again,
);

/// Commits rows from 0 on, in commits of 1 to 4, with a moment between them; returns how many.
async fn write(stage: &Stage, commits: u64) -> u64 {
    let mut next = 0;
    for commit in 0..commits {
        let rows = 1 + commit % 4;
        stage.commit(next..next + rows).await;
        next += rows;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    next
}

async fn a_session_cut_off_at_any_seam_loses_and_repeats_nothing(way: Way) {
    for seam in [Seam::BeforeSend, Seam::BeforeCommit, Seam::AfterCommit, Seam::BeforeAcknowledge] {
        let stage = Stage::by(way).await;
        let mut relay = stage.start_with(cut_at(seam, 4));
        let rows = write(&stage, 200).await;
        relay.relayed(rows).await;
        stage.assert_once_in_order(rows).await;
        relay.stop().await;
    }
}

async fn a_killed_relay_loses_and_repeats_nothing(way: Way) {
    let stage = Stage::by(way).await;
    let mut relay = child::start(&stage);
    let (rows, ()) = tokio::join!(write(&stage, 400), async {
        for _ in 0..3 {
            tokio::time::sleep(std::time::Duration::from_millis(700)).await;
            relay.restart().unwrap();
        }
    });
    relay.kill9();
    let mut last = stage.start();
    stage.commit(rows..rows + 1).await;
    last.relayed(rows + 1).await;
    stage.assert_once_in_order(rows + 1).await;
    last.stop().await;
}

async fn what_postgres_sends_again_after_a_crash_is_skipped(way: Way) {
    let mut postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let stage = Stage::on_by(&test_kit::kafka().await, postgres.create_database("outbox").unwrap(), way).await;
    let mut relay = stage.start();
    stage.commit(0..500).await;
    relay.relayed(500).await;
    for round in 0..2 {
        postgres.kill9();
        // "Not reachable" from the stream, or "not available" from the pool.
        relay.says("postgres", false, "is not ").await;
        postgres.restart().await.unwrap();
        stage.commit(500 + round * 20..520 + round * 20).await;
        relay.relayed(520 + round * 20).await;
        relay.says("postgres", true, "").await;
    }
    stage.assert_once_in_order(540).await;
    relay.stop().await;
}

async fn kafka_may_be_killed_and_started_again(way: Way) {
    let mut kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let stage = Stage::by_on(&kafka.brokers(), way).await;
    let mut relay = stage.start();
    let (rows, ()) = tokio::join!(write(&stage, 1_000), async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        kafka.kill9();
        relay.says("kafka", false, "").await;
        kafka.restart().await.unwrap();
    });
    relay.relayed(rows).await;
    relay.says("kafka", true, "").await;
    stage.assert_once_in_order(rows).await;
    relay.stop().await;
}
