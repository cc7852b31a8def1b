//! `kill -9` of every role, of Kafka and of Postgres, at seeded moments, under load. Afterwards every accepted job
//! has ended once, and only what was killed was restarted.

use std::time::Duration;

use flow::event::JobStatus;
use test_kit::{KafkaOptions, PostgresOptions, Role};
use tokio::task::JoinSet;

use crate::chance::{Chance, TellSeed, seed};
use crate::load::{Load, pass};
use crate::stage::Stage;
use crate::turn::nearly_alone;

/// In flight whenever something is killed.
pub(crate) const IN_FLIGHT_MIN: usize = 400;
/// The load keeps so many jobs in flight.
pub(crate) const IN_FLIGHT: usize = 500;

/// Kills processes of any role, one after the other, until these callers have ended, and at least so often. Returns
/// what they have, and the number of kills.
pub(crate) async fn until_called<T: Send + 'static>(
    stage: &mut Stage,
    chance: &mut Chance,
    mut callers: JoinSet<Vec<T>>,
    (kills_min, pause_ms_max): (u32, u64),
) -> (Vec<T>, u32) {
    let all = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(some) = callers.join_next().await {
            all.extend(some.unwrap());
        }
        all
    });
    let mut kills = 0;
    while !all.is_finished() || kills < kills_min {
        let roles = stage.system.roles();
        let victim = chance.below(roles.len() as u64) as usize;
        roles[victim].process().kill9();
        pass(Duration::from_millis(chance.below(500))).await;
        roles[victim].restart().unwrap();
        roles[victim].wait_until_ready().await.unwrap();
        kills += 1;
        pass(Duration::from_millis(chance.below(pause_ms_max))).await;
    }
    (all.await.unwrap(), kills)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_of_a_role_loses_or_splits_a_job() {
    let (_turn, seed) = (nearly_alone().await, seed());
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
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let mut stage = Stage::start_with(|builder| builder.private_kafka(KafkaOptions::to_be_killed())).await;
    let load = Load::start(&stage, seed, IN_FLIGHT).await;
    for _ in 0..2 {
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
    eprintln!("{jobs} jobs, 2 kills");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_of_postgres_loses_or_splits_a_job() {
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let options = PostgresOptions { fsync: true, ..PostgresOptions::default() };
    let mut stage = Stage::start_with(|builder| builder.private_postgres(options)).await;
    let load = Load::start(&stage, seed, IN_FLIGHT).await;
    for _ in 0..2 {
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
    eprintln!("{jobs} jobs, 2 kills");
}
