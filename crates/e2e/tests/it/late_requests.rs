//! Requests that reach the broker late: a proxy holds one back, its client goes on by another connection, and the
//! broker gets it in the middle of a later transaction.

use test_kit::{KafkaOptions, PRODUCE, ProxiedKafka};

use crate::chance::{TellSeed, seed};
use crate::load::Load;
use crate::stage::Stage;
use crate::turn::nearly_alone;

/// Of the relay and of a worker each.
const HELD: usize = 4;
/// Jobs that end while a request is held back: transactions end and begin.
const JOBS_BETWEEN: usize = 60;
/// Kafka's numbers for a producer whose id has been taken over, and for a partition that is in no transaction of it.
const REFUSALS: [i16; 3] = [47, 90, 48];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: scripts/tools/test-faults"]
async fn no_record_that_reaches_the_broker_late_loses_or_splits_a_job() {
    let (_turn, seed) = (nearly_alone().await, seed());
    let _tell = TellSeed(seed);
    let kafka = ProxiedKafka::start(KafkaOptions::default()).await.unwrap();
    let mut stage = Stage::start_with(|builder| builder.brokers(kafka.brokers())).await;
    let load = Load::start_brisk(&stage, seed, 200).await;
    for _ in 0..HELD {
        for role in ["relay", "workers"] {
            let held = kafka.hold_of(PRODUCE, role).await.unwrap();
            load.until_ended_more(JOBS_BETWEEN).await;
            let error = held.release_produce().await.unwrap();
            assert!(REFUSALS.contains(&error), "{role}: the broker took a late record: {error}");
        }
    }
    let jobs = load.end(&mut stage).await;
    let left = stage.finish().await;
    assert_eq!((left.tokens.ends().len(), left.tokens.dead_letters), (jobs, 0));
}
