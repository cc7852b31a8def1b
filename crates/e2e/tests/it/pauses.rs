//! A process that stands still past every time-out, while another one takes over, and then wakes up as a zombie.

use std::time::Duration;

use test_kit::{Role, eventually};

use crate::chance::{Chance, TellSeed, seed};
use crate::kills::{IN_FLIGHT, IN_FLIGHT_MIN};
use crate::load::{Load, pass};
use crate::stage::{PATIENCE, Stage};
use crate::turn::nearly_alone;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_wakes_up_as_a_zombie_splits_no_job() {
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let mut stage = Stage::start_with(|builder| {
        let builder = builder.role(Role::Workers, 2);
        let builder = builder.variable("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "4000");
        builder.variable("MEANWHILE__WORKERS__TRANSACTION_TIMEOUT_MS", "4000")
    })
    .await;
    let load = Load::start(&stage, seed, IN_FLIGHT).await;
    for round in 0..3 {
        load.until_in_flight(IN_FLIGHT_MIN).await;
        pass(chance.ms_below(1_000)).await;
        let mut workers: Vec<_> =
            stage.system.roles().iter_mut().filter(|process| process.role() == Role::Workers).collect();
        let zombie = workers.swap_remove(round % 2);
        zombie.process().pause();
        pass(Duration::from_secs(9) + chance.ms_below(2_000)).await;
        zombie.process().resume();
    }
    load.until_in_flight(IN_FLIGHT_MIN).await;
    let jobs = load.end(&mut stage).await;
    let left = stage.finish().await;
    assert_eq!(left.tokens.ends().len(), jobs);
    eprintln!("{jobs} jobs, 3 pauses");
}

/// The place of the relay that delivers.
async fn active_relay(stage: &mut Stage) -> usize {
    eventually(PATIENCE, "one relay delivers", async || {
        let mut active = vec![];
        for (place, process) in stage.system.roles().iter().enumerate() {
            let relay = process.role() == Role::Relay;
            if relay && process.metric("meanwhile_relay_active", "").await.is_ok_and(|active| active == 1.0) {
                active.push(place);
            }
        }
        (active.len() == 1).then(|| active[0])
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_wakes_up_as_a_zombie_sends_nothing_twice() {
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let mut stage = Stage::start_with(|builder| {
        builder.role(Role::Relay, 2).variable("MEANWHILE__RELAY__TRANSACTION_TIMEOUT_MS", "4000")
    })
    .await;
    let load = Load::start(&stage, seed, IN_FLIGHT).await;
    for _ in 0..4 {
        load.until_in_flight(IN_FLIGHT_MIN).await;
        let zombie = active_relay(&mut stage).await;
        pass(chance.ms_below(1_000)).await;
        stage.system.roles()[zombie].process().pause();
        pass(Duration::from_secs(6) + chance.ms_below(2_000)).await;
        stage.system.roles()[zombie].process().resume();
    }
    load.until_in_flight(IN_FLIGHT_MIN).await;
    let jobs = load.end(&mut stage).await;
    let left = stage.finish().await;
    assert_eq!(left.tokens.ends().len(), jobs);
    eprintln!("{jobs} jobs, 4 pauses");
}
