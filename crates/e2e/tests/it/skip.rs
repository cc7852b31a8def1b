//! A batch that cannot be read at all: readiness names the partition and the way out, and a person goes it to the end.

use std::ops::Range;

use bus::TopicPartition;
use bus::admin::Admin;
use flow::event::JobStatus;
use serde_json::{Value, json};
use test_kit::{KafkaOptions, Role, eventually, http_client, kcat, read_topic};

use crate::client::{send, small_order};
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

/// Waits until a role names the way past the batch, and returns it as it would be typed.
async fn remedy(stage: &mut Stage, role: Role, place: &TopicPartition) -> Vec<String> {
    let url = format!("{}/readyz", stage.system.role(role).url());
    let told = eventually(PATIENCE, "readiness names the partition", async || {
        let answer = http_client().get(&url).send().await.ok()?.text().await.ok()?;
        let (_, command) = answer.split_once("`meanwhile topics ")?;
        Some(format!("topics {}", command.split_once('`')?.0))
    })
    .await;
    assert!(told.contains(&format!("--topic {} --partition {} ", place.topic, place.partition)), "{told}");
    told.split(' ').map(str::to_owned).collect()
}

/// Goes the way that readiness names, and waits until the role is ready again.
async fn follow(stage: &mut Stage, role: Role, place: &TopicPartition, gap: &Range<i64>) {
    let words = remedy(stage, role, place).await;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let dry = [&words[..], &["--dry-run"]].concat();
    let told = stage.system.run(&dry).await.unwrap();
    assert!(told.contains("would be moved") && told.contains(&format!("to {}", gap.end)), "{told}");
    let told = stage.system.run(&words).await.unwrap();
    assert!(told.contains("is moved"), "{told}");
    stage.system.role(role).wait_until_ready().await.unwrap();
    // Asked again, nobody stands there any more.
    assert!(stage.system.run(&words).await.is_err());
    let brokers = stage.system.brokers().to_owned();
    let topic = stage.system.topics().dead_letters();
    let gap_of = format!("{}/{}", place.topic, place.partition);
    eventually(PATIENCE, &format!("a dead letter names the gap in {gap_of}"), async || {
        let letters = read_topic(&brokers, &topic).await.unwrap();
        let header = |record: &events::Inbound, name: &str| record.header_text(name).map(str::to_owned);
        let names = |record: &&events::Inbound| {
            header(record, "meanwhile-failure-topic").as_deref() == Some(&place.topic)
                && header(record, "meanwhile-failure-reason").is_some_and(|reason| reason.contains("could not be read"))
        };
        (letters.iter().filter(names).count() == 1).then_some(())
    })
    .await;
    // What reads all records back at the end of a test could not read these either.
    let admin = Admin::new(&stage.system.settings()).unwrap();
    admin.delete_records(&[(place.clone(), gap.end)]).await.unwrap();
}

fn command(customer: &str) -> String {
    json!({ "flow": "saga", "id": customer, "input": small_order(customer, json!({})) }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_commands_that_nobody_can_read_is_passed_over_and_the_next_command_runs() {
    let _turn = beside_others().await;
    let mut stage = Stage::start_with(|builder| builder.private_kafka(KafkaOptions::default())).await;
    let (brokers, topic) = (stage.system.brokers().to_owned(), stage.system.topics().commands());
    let say = |customer: &str| {
        kcat(&["-P", "-b", &brokers, "-t", &topic, "-p", "0"], command(customer).as_bytes()).unwrap();
    };
    stage.system.role(Role::Ingest).terminate(PATIENCE).await.unwrap();
    say("lost");
    let place = TopicPartition::new(topic.as_str(), 0);
    let gap = stage.system.kafka().spoil_last_batch(&topic, 0).unwrap();
    say("next");
    stage.system.role(Role::Ingest).restart().unwrap();
    follow(&mut stage, Role::Ingest, &place, &gap).await;
    // One key space with HTTP: the id of the command is its job's key.
    let request = http_client().post(format!("{}/v1/flows/saga/jobs", stage.system.api()));
    let same = send(request.header("idempotency-key", "\"next\"").json(&small_order("next", json!({})))).await;
    let job = match same.status {
        202 => same.job(),
        _ => same.body["job"].as_str().unwrap().parse().unwrap(),
    };
    stage.system.note_accepted([job]);
    assert_eq!(stage.end_of(job).await.status, JobStatus::Succeeded);
    let left = stage.finish().await;
    assert_eq!(left.tokens.dead_letters, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_slips_that_nobody_can_read_is_passed_over_while_workers_run() {
    let _turn = beside_others().await;
    let mut stage = Stage::start_with(|builder| builder.private_kafka(KafkaOptions::default())).await;
    let topic = stage.system.topics().steps("default");
    let admin = Admin::new(&stage.system.settings()).unwrap();
    stage.system.role(Role::Workers).terminate(PATIENCE).await.unwrap();
    let lost = stage.submit("saga", &small_order("one", json!({}))).await;
    let place = eventually(PATIENCE, "its slip is there", async || {
        let ends = admin.end_offsets(std::slice::from_ref(&topic)).await.unwrap();
        ends.into_iter().find(|(_, end)| *end > 0).map(|(place, _)| place)
    })
    .await;
    let gap = stage.system.kafka().spoil_last_batch(&topic, place.partition).unwrap();
    // Of the same key, and so behind it.
    let next = stage.submit("saga", &small_order("one", json!({}))).await;
    stage.system.role(Role::Workers).restart().unwrap();
    follow(&mut stage, Role::Workers, &place, &gap).await;
    assert_eq!(stage.end_of(next).await.status, JobStatus::Succeeded);
    let status: Value = stage.system.status(lost).await.unwrap();
    assert_eq!(status["status"], "accepted", "its token was in the gap");
    stage.system.except([lost]);
    stage.finish().await;
}
