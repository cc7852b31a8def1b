//! Jobs of one ordering key begin in the order in which they were submitted.

use std::collections::HashMap;

use serde_json::json;
use shop::{Op, Trade};

use crate::client::small_order;
use crate::stage::Stage;
use crate::turn::nearly_alone;

const JOBS: usize = 1_000;
const KEYS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_steps_of_a_key_run_in_submit_order() {
    let _turn = nearly_alone().await;
    let mut stage = Stage::start_with(|builder| builder.role(test_kit::Role::Workers, 2)).await;
    let client = stage.system.client();
    // Each key's jobs one after the other, all keys at once.
    let customers = (0..KEYS).map(|customer| {
        let client = client.clone();
        tokio::spawn(async move {
            let name = format!("customer-{customer}");
            let mut jobs = vec![];
            for number in 0..JOBS / KEYS {
                // Every seventh first step takes longer than the next one's.
                let simulate = if number % 7 == 0 { json!({ "inventory": "slow:60" }) } else { json!({}) };
                let (key, input) = (format!("{name}-{number}"), small_order(&name, simulate));
                jobs.push(test_kit::submit(&client, "saga", &key, &input).await.unwrap());
            }
            jobs
        })
    });
    let mut submitted = vec![];
    for customer in customers.collect::<Vec<_>>() {
        let jobs = customer.await.unwrap();
        stage.system.note_accepted(jobs.iter().copied());
        submitted.push(jobs);
    }
    let left = stage.finish().await;
    let log = left.shop.log_after(Trade::Inventory, 0);
    let called: HashMap<&str, u64> =
        log.iter().filter(|line| line.op == Op::CreateCalled).map(|line| (line.order.as_str(), line.at_seq)).collect();
    for jobs in submitted {
        let order: Vec<u64> = jobs.iter().map(|job| called[job.to_string().as_str()]).collect();
        assert!(order.is_sorted(), "{order:?}");
        assert_eq!(order.len(), JOBS / KEYS);
    }
}
