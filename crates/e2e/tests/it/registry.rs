//! A registry that is down is never a bad record.

use bus::{Producer, Record};
use events::headers::Headers;
use serde_json::json;
use test_kit::{Role, eventually, http_client, read_topic};

use crate::client::{order, small_order};
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

/// Waits until a role's readiness names the registry as missing.
async fn until_registry_is_missed(stage: &mut Stage, role: Role) {
    let (client, url) = (http_client(), format!("{}/readyz", stage.system.role(role).url()));
    eventually(PATIENCE, &format!("{} misses the registry", role.as_str()), async || {
        let answer = client.get(&url).send().await.ok()?;
        let red = !answer.status().is_success();
        (red && answer.text().await.ok()?.contains("registry")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_registry_is_down_nothing_is_dead_lettered_and_then_work_goes_on() {
    let _turn = beside_others().await;
    let mut stage = Stage::start_with(|builder| builder.private_registry()).await;
    let (brokers, topics) = (stage.system.brokers().to_owned(), stage.system.topics());
    let before = stage.submit("order", &order("c-1", json!({}))).await;
    stage.end_of(before).await;

    stage.system.registry().kill9();
    // Nobody can know whether this id exists.
    let producer = Producer::new(&stage.system.settings()).unwrap();
    let asked = [topics.steps("default"), topics.events(), topics.waits()];
    for topic in &asked {
        let value = [&[0][..], &999_999_u32.to_be_bytes(), b"rest"].concat();
        let record =
            Record { topic: topic.clone(), key: Some(b"k".to_vec()), value: Some(value), headers: Headers::default() };
        producer.send(&record).await.unwrap();
    }
    until_registry_is_missed(&mut stage, Role::Workers).await;
    until_registry_is_missed(&mut stage, Role::Orchestrator).await;
    // Jobs are accepted all the same.
    let mut jobs = vec![];
    for customer in 0..24 {
        jobs.push(stage.submit("saga", &small_order(&format!("c-{customer}"), json!({}))).await);
    }
    assert_eq!(read_topic(&brokers, &topics.dead_letters()).await.unwrap().len(), 0);

    stage.system.registry().restart().await.unwrap();
    let ends = stage.ends_of(jobs).await;
    assert!(ends.values().all(|end| end.status == flow::event::JobStatus::Succeeded));
    // Now the registry says that there is no such schema.
    eventually(PATIENCE, "the three are dead letters", async || {
        (read_topic(&brokers, &topics.dead_letters()).await.unwrap().len() == asked.len()).then_some(())
    })
    .await;
    stage.system.expect_unreadable(asked.len());
    stage.finish().await;
}
