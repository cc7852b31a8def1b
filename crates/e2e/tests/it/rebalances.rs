//! Workers come and go every few seconds while steps of up to three seconds run.

use test_kit::{Role, eventually, http_client};

use crate::chance::{Chance, TellSeed, seed};
use crate::kills::{IN_FLIGHT, IN_FLIGHT_MIN};
use crate::load::{Load, pass};
use crate::stage::{PATIENCE, Stage};
use crate::turn::nearly_alone;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_join_and_leave_under_load_lose_and_split_nothing() {
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let mut stage = Stage::start_with(|builder| {
        let builder = builder.role(Role::Workers, 2);
        let builder = builder.variable("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "4000");
        // Shorter than the longest steps: some are given up, and run again elsewhere.
        builder.variable("MEANWHILE__WORKERS__DRAIN_TIMEOUT_MS", "1500")
    })
    .await;
    let load = Load::start(&stage, seed, IN_FLIGHT).await;
    for _ in 0..8 {
        load.until_in_flight(IN_FLIGHT_MIN).await;
        pass(chance.ms_below(2_000)).await;
        let workers: Vec<usize> = (0..stage.system.roles().len())
            .filter(|place| stage.system.roles()[*place].role() == Role::Workers)
            .collect();
        // Between one and four.
        let leave = workers.len() > 1 && (workers.len() == 4 || chance.below(2) == 0);
        if leave {
            let place = workers[chance.below(workers.len() as u64) as usize];
            let mut leaver = stage.system.roles().remove(place);
            // It may have been started a moment ago, and have no ear for signals yet.
            let health = format!("{}/healthz", leaver.url());
            eventually(PATIENCE, "it has begun", async || http_client().get(&health).send().await.ok()).await;
            let status = leaver.terminate(PATIENCE).await.unwrap();
            assert!(status.success(), "a worker left with {status}");
        } else {
            stage.add(Role::Workers).await;
        }
    }
    load.until_in_flight(IN_FLIGHT_MIN).await;
    let jobs = load.end(&mut stage).await;
    let left = stage.finish().await;
    assert_eq!(left.tokens.ends().len(), jobs);
    eprintln!("{jobs} jobs, 8 comings and goings");
}
