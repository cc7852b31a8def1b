//! Of three brokers one dies, and takes the only copy of some partitions with it: what is to go there waits, all else
//! goes on, and nobody has to do anything when it is back.

use std::fs;

use bus::admin::Admin;
use flow::event::JobStatus;
use serde_json::json;
use test_kit::{KafkaOptions, Role, eventually, http_client, repository};

use crate::client::small_order;
use crate::stage::{PATIENCE, Stage};
use crate::turn::nearly_alone;

/// Enough keys for every partition.
const JOBS: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: scripts/tools/test-faults"]
async fn a_partition_without_a_leader_stops_only_what_is_to_go_there_and_recovers_by_itself() {
    let _turn = nearly_alone().await;
    let flows = tempfile::tempdir().unwrap();
    let saga = repository().join("crates/e2e/flows");
    let apart = fs::read_to_string(saga.join("saga.yaml")).unwrap();
    // Its first steps are where all others' are.
    let apart =
        apart.replace("flow: saga", "flow: apart").replace("- id: charge\n", "- id: charge\n    queue: apart\n");
    assert!(apart.contains("queue: apart"));
    fs::write(flows.path().join("apart.yaml"), apart).unwrap();
    fs::copy(saga.join("saga.schema.json"), flows.path().join("saga.schema.json")).unwrap();
    let mut stage = Stage::start_with(|builder| builder.private_kafka(KafkaOptions::three_brokers())).await;
    // The flow finds its queue made already, with one copy of each partition.
    let (admin, topics) = (Admin::new(&stage.system.settings()).unwrap(), stage.system.topics());
    let group = topics.workers_group();
    assert!(admin.ensure_queue(&topics, "apart", &group, Some(1)).await.unwrap());
    stage.system.run(&["flows", "apply", &flows.path().display().to_string()]).await.unwrap();
    let before = eventually(PATIENCE, "the flow is known", async || {
        test_kit::submit(&stage.system.client(), "apart", "before", &small_order("before", json!({}))).await.ok()
    })
    .await;
    stage.system.note_accepted([before]);
    assert_eq!(stage.end_of(before).await.status, JobStatus::Succeeded);
    stage.system.kafka().kill_broker(1);
    let (mut apart, mut others) = (Vec::new(), Vec::new());
    for number in 0..JOBS {
        let order = small_order(&format!("c-{number}"), json!({}));
        apart.push(stage.submit("apart", &order).await);
        others.push(stage.submit("saga", &order).await);
    }
    let (client, url) = (http_client(), format!("{}/readyz", stage.system.role(Role::Workers).url()));
    eventually(PATIENCE, "readiness names the topic", async || {
        let text = client.get(&url).send().await.ok()?.text().await.ok()?;
        text.contains(&topics.steps("apart")).then_some(())
    })
    .await;
    let ends = stage.ends_of(others).await;
    assert!(ends.values().all(|end| end.status == JobStatus::Succeeded), "{ends:?}");
    stage.system.kafka().restart_broker(1).await.unwrap();
    let ends = stage.ends_of(apart).await;
    assert!(ends.values().all(|end| end.status == JobStatus::Succeeded), "{ends:?}");
    eventually(PATIENCE, "the workers are ready again", async || {
        client.get(&url).send().await.ok()?.status().is_success().then_some(())
    })
    .await;
    assert_eq!(stage.finish().await.tokens.dead_letters, 0);
}
