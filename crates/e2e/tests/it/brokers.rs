//! A Kafka of three brokers: one of them dies, or two, so that fewer replicas are left than a write wants.

use test_kit::KafkaOptions;

use crate::chance::{Chance, TellSeed, seed};
use crate::kills::{IN_FLIGHT, IN_FLIGHT_MIN};
use crate::load::{Load, pass};
use crate::stage::Stage;
use crate::turn::nearly_alone;

const BROKERS: u64 = 3;

#[ignore = "minutes: scripts/tools/test-faults"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_death_of_one_broker_of_three_or_of_two_loses_or_splits_a_job() {
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let mut stage = Stage::start_with(|builder| builder.private_kafka(KafkaOptions::three_brokers())).await;
    let load = Load::start(&stage, seed, IN_FLIGHT).await;
    for deaths in [1, 2, 1] {
        load.until_in_flight(IN_FLIGHT_MIN).await;
        pass(chance.ms_below(2_000)).await;
        let first = chance.below(BROKERS);
        let dead = (0..deaths).map(|next| ((first + next) % BROKERS) as usize);
        for broker in dead.clone() {
            stage.system.kafka().kill_broker(broker);
            pass(chance.ms_below(3_000)).await;
        }
        for broker in dead {
            stage.system.kafka().restart_broker(broker).await.unwrap();
        }
    }
    load.until_in_flight(IN_FLIGHT_MIN).await;
    let jobs = load.end(&mut stage).await;
    let left = stage.finish().await;
    assert_eq!(left.tokens.ends().len(), jobs);
    assert_eq!(left.tokens.dead_letters, 0);
    eprintln!("{jobs} jobs, 4 deaths");
}
