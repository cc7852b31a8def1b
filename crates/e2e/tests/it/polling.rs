//! A Postgres that allows no logical decoding: `migrate` chooses polling, and under kills of every role and of Postgres
//! every accepted job ends once.

use test_kit::{PostgresOptions, Role};

use crate::chance::{Chance, TellSeed, seed};
use crate::load::{Load, pass};
use crate::stage::Stage;
use crate::turn::nearly_alone;

/// In flight whenever something is killed.
const IN_FLIGHT_MIN: usize = 150;
/// The load keeps so many jobs in flight.
const IN_FLIGHT: usize = 200;

#[ignore = "minutes: scripts/tools/test-faults"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_loses_or_splits_a_job_where_the_outbox_is_polled() {
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let settings = vec![("wal_level".to_owned(), "replica".to_owned())];
    let options = PostgresOptions { fsync: true, settings, ..PostgresOptions::default() };
    let mut stage = Stage::start_with(|builder| {
        builder
            .private_postgres(options)
            .role(Role::Relay, 2)
            .role(Role::Workers, 2)
            .variable("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "3000")
    })
    .await;
    let migrated = stage.system.run(&["migrate"]).await.unwrap();
    assert!(migrated.contains("outbox    relays poll the table: as was chosen before"), "{migrated}");
    let refused = stage.system.run(&["migrate", "--outbox-reader", "logical"]).await.unwrap_err();
    assert!(format!("{refused:#}").contains("set wal_level=logical in postgresql.conf"), "{refused:#}");

    let load = Load::start_brisk(&stage, seed, IN_FLIGHT).await;
    let roles = stage.system.roles().len();
    let mut victims: Vec<Option<usize>> = (0..roles).map(Some).chain([None; 2]).collect();
    let kills = victims.len();
    while !victims.is_empty() {
        let victim = victims.swap_remove(chance.below(victims.len() as u64) as usize);
        load.until_in_flight(IN_FLIGHT_MIN).await;
        pass(chance.ms_below(1_000)).await;
        match victim {
            Some(role) => {
                let victim = &mut stage.system.roles()[role];
                victim.process().kill9();
                pass(chance.ms_below(1_000)).await;
                victim.restart().unwrap();
                victim.wait_until_ready().await.unwrap();
            }
            None => {
                stage.system.postgres().kill9();
                pass(chance.ms_below(2_000)).await;
                stage.system.postgres().restart().await.unwrap();
            }
        }
    }
    load.until_in_flight(IN_FLIGHT_MIN).await;
    let jobs = load.end(&mut stage).await;
    let left = stage.finish().await;
    assert_eq!(left.tokens.ends().len(), jobs);
    eprintln!("{jobs} jobs, {kills} kills");
}
