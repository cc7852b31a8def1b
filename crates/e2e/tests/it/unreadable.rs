//! Records that nobody can read, on every topic that is consumed: they end as dead letters, byte for byte, and the
//! records after them are consumed as usual.

use events::headers::Headers;
use std::collections::BTreeMap;

use bus::{Inbound, Producer, Record};
use serde_json::json;
use test_kit::{eventually, noise, psql, read_topic};

use crate::client::{order, small_order};
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

/// A topic's `max.message.bytes` is about the batch: what a record of one frames it with, at most.
const FRAME_BYTES: usize = 200;
const RECORD_BYTES_MAX: usize = 1_048_576;
const PARTITIONS: usize = 6;

/// Avro framing: zero, a schema id, and what follows.
fn framed(schema: u32, rest: &[u8]) -> Vec<u8> {
    [&[0][..], &schema.to_be_bytes(), rest].concat()
}

/// Key and value of everything that cannot be read. `known` is a framed value that can.
fn unreadable(known: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let key = |name: &str| name.as_bytes().to_vec();
    vec![
        (key("empty"), vec![]),
        (key("magic"), [&[7][..], &known[1..]].concat()),
        (key("schema"), framed(999_999, &known[6..])),
        (key("truncated"), known[..known.len() / 2].to_vec()),
        (vec![0xff, 0xfe, 0x00, b'k'], framed(0, b"neither")),
        (key("noise"), noise(RECORD_BYTES_MAX - FRAME_BYTES - 5)),
    ]
}

/// Each of them once, as it was: by topic, partition and offset, as the letters' headers have them.
fn assert_buried(dead: &[Inbound], mut sent: BTreeMap<(String, String, String), Record>) {
    for letter in dead {
        let text = |name: &str| letter.header(name).map(|text| String::from_utf8(text.to_vec()).unwrap());
        let Some(topic) = text("meanwhile-failure-topic") else { continue };
        let place = (topic, text("meanwhile-failure-partition").unwrap(), text("meanwhile-failure-offset").unwrap());
        let original = sent.remove(&place).or_else(|| {
            // A slip whose schema nobody knows has rested for a while, and was sent again.
            let same = |(topic, ..): &(String, String, String), record: &Record| {
                *topic == place.0 && record.key == letter.key && record.value == letter.value
            };
            let first = sent.iter().find(|(place, record)| same(place, record))?.0.clone();
            sent.remove(&first)
        });
        let original = original.unwrap_or_else(|| panic!("{place:?} was buried twice, or never sent"));
        assert!(letter.key == original.key && letter.value == original.value, "{place:?} is not byte for byte");
        assert_eq!(letter.header("x-mine"), Some(&b"as it was"[..]));
        assert!(text("meanwhile-failure-reason").is_some_and(|reason| !reason.is_empty()));
    }
    assert!(sent.is_empty(), "not buried: {:?}", sent.keys());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_records_are_kept_byte_for_byte_and_the_partition_goes_on() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let (brokers, topics) = (stage.system.brokers().to_owned(), stage.system.topics());
    // Something of each kind that is fine, to spoil: an event and a slip, and a hold by a retry that is put off.
    let first = stage.submit("order", &order("c-1", json!({ "payment": "busy:1" }))).await;
    stage.end_of(first).await;
    let fine = async |topic: &str| read_topic(&brokers, topic).await.unwrap()[0].value.clone().unwrap();
    let (slip, event) = (fine(&topics.steps("default")).await, fine(&topics.events()).await);
    let wait = fine(&topics.waits()).await;
    let document = fine(&topics.flows()).await;

    let producer = Producer::new(&stage.system.settings()).unwrap();
    let mut sent = BTreeMap::new();
    let consumed = [
        (topics.commands(), framed(1, b"{\"flow\":")),
        (topics.steps("default"), slip),
        (topics.steps("shipping"), event.clone()),
        (topics.events(), event.clone()),
        (topics.waits(), wait),
        (topics.cancels(), event),
        (topics.flows(), document),
    ];
    for (topic, known) in &consumed {
        for (key, value) in unreadable(known) {
            let record = Record {
                topic: topic.clone(),
                key: Some(key),
                value: Some(value),
                headers: Headers::from([("x-mine", Some("as it was"))]),
            };
            let (partition, offset) = producer.send(&record).await.unwrap();
            sent.insert((topic.clone(), partition.to_string(), offset.to_string()), record);
        }
    }
    // On the topic of the dead themselves they stay where they are.
    for (key, value) in unreadable(b"neither of the above") {
        let record =
            Record { topic: topics.dead_letters(), key: Some(key), value: Some(value), headers: Headers::default() };
        producer.send(&record).await.unwrap();
    }
    let strangers = unreadable(b"neither of the above").len();

    let dead = eventually(PATIENCE, "a dead letter for each", async || {
        let dead = read_topic(&brokers, &topics.dead_letters()).await.unwrap();
        (dead.len() >= sent.len() + strangers).then_some(dead)
    })
    .await;
    assert_buried(&dead, sent);
    eventually(PATIENCE, "each dead letter in the index", async || {
        let indexed = psql(stage.system.database_url(), "select count(*) from orchestrator.dead_letters").unwrap();
        (indexed == dead.len().to_string()).then_some(())
    })
    .await;

    // Every partition of every topic goes on: many keys, and a hold for each.
    let mut jobs = vec![];
    for customer in 0..PARTITIONS * 8 {
        let input = small_order(&format!("after-{customer}"), json!({ "payment": "busy:1" }));
        jobs.push(stage.submit("saga", &input).await);
    }
    let ends = stage.ends_of(jobs).await;
    assert!(ends.values().all(|end| end.status == flow::event::JobStatus::Succeeded));
    // On two steps topics, on events and on waits; the reading back meets them too.
    stage.system.expect_unreadable(4 * unreadable(b"neither of the above").len());
    stage.finish().await;
}
