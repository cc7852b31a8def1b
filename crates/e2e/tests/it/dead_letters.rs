//! What was buried comes back: dead letters and parked jobs are sent on, as they are or mended.

use bus::{Producer, Record};
use client::{Choice, DeadLetter, Redrive, RedriveMany};
use events::headers::Headers;
use flow::event::JobStatus;
use serde_json::{Value, json};
use test_kit::eventually;

use crate::client::{order, small_order};
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

async fn letters(stage: &Stage, class: &str) -> Vec<DeadLetter> {
    let choice = Choice { class: Some(class.to_owned()), ..Choice::default() };
    stage.system.client().dead_letters(&choice, None, 100).await.unwrap().dead_letters
}

/// The only one of its class, as soon as it is listed.
async fn letter(stage: &Stage, class: &str) -> DeadLetter {
    eventually(PATIENCE, class, async || {
        let mut letters = letters(stage, class).await;
        (letters.len() == 1).then(|| letters.remove(0))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_buried_comes_back_mended_and_what_is_not_mended_is_counted() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let (client, topics) = (stage.system.client(), stage.system.topics());
    let producer = Producer::new(&stage.system.settings()).unwrap();
    let send = async |topic: String, value: Vec<u8>| {
        let record = Record { topic, key: Some(b"c-1".to_vec()), value: Some(value), headers: Headers::default() };
        producer.send(&record).await.unwrap()
    };
    let command = |input: &Value| json!({ "flow": "order", "input": input }).to_string().into_bytes();
    let good = order("c-1", json!({}));
    let mut bad = good.clone();
    bad["qty"] = json!("two");
    send(topics.commands(), command(&bad)).await;
    send(topics.commands(), b"{\"flow\":".to_vec()).await;
    send(topics.commands(), json!({ "flow": "oder", "input": good }).to_string().into_bytes()).await;
    send(topics.waits(), b"no record of ours".to_vec()).await;

    // A command is mended on its way, by what its reason says.
    for class in ["schema-violation", "invalid-command", "unknown-flow"] {
        let buried = letter(&stage, class).await;
        let mended = Some(serde_json::from_slice(&command(&good)).unwrap());
        let order = Redrive { value: mended, ..Redrive::default() };
        assert_eq!(client.redrive(&buried.id, &order).await.unwrap(), topics.commands(), "{class}");
        assert_eq!(client.redrive(&buried.id, &order).await.unwrap(), topics.commands(), "once more changes nothing");
    }
    let accepted = "select string_agg(job::text, ',') from ingest.acceptances having count(*) = 3";
    let jobs = eventually(PATIENCE, "three jobs", async || {
        let jobs = test_kit::psql(stage.system.database_url(), accepted).unwrap();
        (!jobs.is_empty()).then_some(jobs)
    })
    .await;
    let jobs: Vec<_> = jobs.split(',').map(|job| job.parse().unwrap()).collect();
    stage.system.note_accepted(jobs.iter().copied());
    for (_, end) in stage.ends_of(jobs).await {
        assert_eq!(end.status, JobStatus::Succeeded);
    }

    // What is as bad as before comes back, and says how often.
    let first = letter(&stage, "unreadable").await;
    assert_eq!(client.redrive(&first.id, &Redrive::default()).await.unwrap(), topics.waits());
    let second = eventually(PATIENCE, "it comes back", async || {
        letters(&stage, "unreadable").await.into_iter().find(|letter| letter.id != first.id)
    })
    .await;
    assert_eq!((first.redrives, second.redrives), (0, 1));
    client.drop_dead_letter(&second.id, "a test").await.unwrap();
    assert!(letters(&stage, "unreadable").await.is_empty());

    // A parked job is one of them.
    let input = small_order("c-2", json!({ "inventory": "undo_error", "payment": "declined" }));
    let parked = stage.submit("patient", &input).await;
    assert_eq!(letter(&stage, "parked").await.id, parked.to_string());
    stage.shop.mend(true);
    let choice = Choice { class: Some("parked".to_owned()), ..Choice::default() };
    let all = RedriveMany { choice, max: 10, ..RedriveMany::default() };
    let redriven = client.redrive_many(&all).await.unwrap();
    assert_eq!((redriven.chosen, redriven.redriven, redriven.left.len()), (1, 1, 0));
    assert_eq!(stage.end_of(parked).await.status, JobStatus::Failed);
    assert!(letters(&stage, "parked").await.is_empty());
    // The same bytes, twice.
    stage.system.expect_unreadable(1);
    stage.finish().await;
}
