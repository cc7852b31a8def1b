//! `kill -9` of every role, of Kafka and of Postgres, at seeded moments, under load. Afterwards every accepted job
//! has ended once, and only what was killed was restarted.

use flow::event::JobStatus;
use test_kit::{KafkaOptions, PostgresOptions, Role};

use crate::chance::{Chance, TellSeed, seed};
use crate::load::{Load, pass};
use crate::stage::Stage;
use crate::turn::alone;

/// In flight whenever something is killed.
pub(crate) const IN_FLIGHT_MIN: usize = 400;
/// The load keeps so many jobs in flight.
pub(crate) const IN_FLIGHT: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_of_a_role_loses_or_splits_a_job() {
    let (_turn, seed) = (alone(), seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let mut stage = Stage::start_with(|builder| {
        builder.role(Role::Workers, 2).variable("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "3000")
    })
    .await;
    let load = Load::start(&stage, seed, IN_FLIGHT).await;
    // Each process twice, in an order of chance.
    let mut victims: Vec<usize> = (0..stage.system.roles().len()).flat_map(|place| [place, place]).collect();
    while !victims.is_empty() {
        let victim = victims.swap_remove(chance.below(victims.len() as u64) as usize);
        load.until_in_flight(IN_FLIGHT_MIN).await;
        pass(chance.ms_below(1_000)).await;
        let victim = &mut stage.system.roles()[victim];
        victim.process().kill9();
        pass(chance.ms_below(1_000)).await;
        victim.restart().unwrap();
        victim.wait_until_ready().await.unwrap();
    }
    let jobs = load.end(&mut stage).await;
    let left = stage.finish().await;
    assert_eq!(left.tokens.ends().len(), jobs);
    assert!(left.count(JobStatus::Succeeded) > jobs / 2 && left.count(JobStatus::Failed) > jobs / 20);
    eprintln!("{jobs} jobs, 12 kills");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_of_kafka_loses_or_splits_a_job() {
    let (_turn, seed) = (alone(), seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let mut stage = Stage::start_with(|builder| builder.private_kafka(KafkaOptions::to_be_killed())).await;
    let load = Load::start(&stage, seed, IN_FLIGHT).await;
    for _ in 0..3 {
        load.until_in_flight(IN_FLIGHT_MIN).await;
        pass(chance.ms_below(2_000)).await;
        stage.system.kafka().kill9();
        pass(chance.ms_below(3_000)).await;
        stage.system.kafka().restart().await.unwrap();
    }
    load.until_in_flight(IN_FLIGHT_MIN).await;
    let jobs = load.end(&mut stage).await;
    let left = stage.finish().await;
    assert_eq!(left.tokens.ends().len(), jobs);
    eprintln!("{jobs} jobs, 3 kills");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_of_postgres_loses_or_splits_a_job() {
    let (_turn, seed) = (alone(), seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let options = PostgresOptions { fsync: true, ..PostgresOptions::default() };
    let mut stage = Stage::start_with(|builder| builder.private_postgres(options)).await;
    let load = Load::start(&stage, seed, IN_FLIGHT).await;
    for _ in 0..4 {
        load.until_in_flight(IN_FLIGHT_MIN).await;
        pass(chance.ms_below(2_000)).await;
        stage.system.postgres().kill9();
        pass(chance.ms_below(3_000)).await;
        stage.system.postgres().restart().await.unwrap();
    }
    load.until_in_flight(IN_FLIGHT_MIN).await;
    let jobs = load.end(&mut stage).await;
    let left = stage.finish().await;
    assert_eq!(left.tokens.ends().len(), jobs);
    eprintln!("{jobs} jobs, 4 kills");
}
