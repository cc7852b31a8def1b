//! A queue whose topic is gone: its jobs wait and say so, all others go on, and nobody has to send anything again.

use std::fs;

use bus::admin::Admin;
use flow::event::JobStatus;
use serde_json::json;
use test_kit::{eventually, repository};

use crate::client::small_order;
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

const JOBS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_whose_first_queue_has_no_topic_wait_for_it_and_stop_nobody() {
    let _turn = beside_others().await;
    let flows = tempfile::tempdir().unwrap();
    let saga = repository().join("crates/e2e/flows");
    let aside = fs::read_to_string(saga.join("saga.yaml")).unwrap();
    let aside =
        aside.replace("flow: saga", "flow: aside").replace("- id: reserve\n", "- id: reserve\n    queue: aside\n");
    fs::write(flows.path().join("aside.yaml"), aside).unwrap();
    fs::copy(saga.join("saga.schema.json"), flows.path().join("saga.schema.json")).unwrap();
    let mut stage = Stage::start_with(|builder| builder.flows(flows.path())).await;
    let (admin, topics) = (Admin::new(&stage.system.settings()).unwrap(), stage.system.topics());
    let topic = topics.steps("aside");
    admin.delete_topic(&topic).await.unwrap();
    eventually(PATIENCE, "the topic is gone", async || admin.topic_exists(&topic).await.ok().filter(|there| !there))
        .await;
    let (mut aside, mut others) = (Vec::new(), Vec::new());
    for number in 0..JOBS {
        let order = small_order(&format!("c-{number}"), json!({}));
        aside.push(stage.submit("aside", &order).await);
        others.push(stage.submit("saga", &order).await);
    }
    let ends = stage.ends_of(others).await;
    assert!(ends.values().all(|end| end.status == JobStatus::Succeeded), "{ends:?}");
    for job in &aside {
        let status = eventually(PATIENCE, "its status says what it waits for", async || {
            let status = stage.system.status(*job).await.unwrap();
            status.to_string().contains("queue `aside` has no topic").then_some(status)
        });
        assert_eq!(status.await["status"], "waiting");
    }
    let group = topics.workers_group();
    assert!(admin.ensure_queue(&topics, "aside", &group, None).await.unwrap());
    let ends = stage.ends_of(aside).await;
    assert!(ends.values().all(|end| end.status == JobStatus::Succeeded), "{ends:?}");
    assert_eq!(stage.finish().await.tokens.dead_letters, 0);
}
