//! Kafka and Postgres are gone for longer than a lease, while calls are under way.

use std::time::Duration;

use flow::event::JobStatus;
use flow::id::JobId;
use test_kit::{KafkaOptions, PostgresOptions};

use crate::stage::{PATIENCE, Stage};
use crate::turn::nearly_alone;

const LONG: usize = 30;
/// Two leases: whoever took an outage for a worker's silence would have released its calls by then.
const OUTAGE: Duration = Duration::from_secs(6);

/// Holds that the system works again, and that nobody is called again.
async fn assert_nobody_is_called_again(stage: &mut Stage, jobs: &[JobId]) {
    let quick = stage.call("quick", 20).await;
    stage.system.wait_until_ended(quick, PATIENCE).await.unwrap();
    // There is nothing to wait for: what must not happen would happen in this time.
    tokio::time::sleep(OUTAGE).await;
    stage.called.assert_called_once(jobs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_kafka_or_of_postgres_repeats_no_call() {
    let _turn = nearly_alone().await;
    let options = PostgresOptions { fsync: true, ..PostgresOptions::default() };
    let mut stage =
        Stage::start_with(|builder| builder.private_kafka(KafkaOptions::to_be_killed()).private_postgres(options))
            .await;
    let mut jobs = stage.call("held", LONG).await;
    stage.watch.until_running(&jobs).await;
    stage.system.postgres().kill9();
    tokio::time::sleep(OUTAGE).await;
    stage.system.postgres().restart().await.unwrap();
    assert_nobody_is_called_again(&mut stage, &jobs).await;

    jobs.extend(stage.call("held", LONG).await);
    stage.watch.until_running(&jobs).await;
    stage.system.kafka().kill9();
    tokio::time::sleep(OUTAGE).await;
    stage.system.kafka().restart().await.unwrap();
    assert_nobody_is_called_again(&mut stage, &jobs).await;
    stage.called.release();
    let (_, called) = stage.finish().await;
    called.assert_called_once(&jobs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_end_in_an_outage_of_kafka_end_once_it_is_over() {
    let _turn = nearly_alone().await;
    let mut stage = Stage::start_with(|builder| builder.private_kafka(KafkaOptions::to_be_killed())).await;
    let jobs = stage.call("held", LONG).await;
    stage.watch.until_running(&jobs).await;
    // These are about to leave their partition, or have just left: nobody may know, and then they are made again.
    let fresh = stage.call("held", LONG).await;
    stage.called.until_open(2 * LONG).await;
    stage.system.kafka().kill9();
    stage.called.release();
    stage.called.until_open(0).await;
    stage.system.kafka().restart().await.unwrap();
    let (tokens, called) = stage.finish().await;
    called.assert_called_once(&jobs);
    let ends = tokens.ends();
    assert!(jobs.iter().chain(&fresh).all(|job| ends[job].status == JobStatus::Succeeded));
}
