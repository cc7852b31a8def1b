//! Records that nobody can read: kept byte for byte, once, and the partition goes on. And the index of dead letters.

use events::cancel::Cancel;
use events::dead_letter::{self, Failure, burial};
use events::headers::Headers;
use events::wait::{Signal, Wait};
use events::{Inbound, Record, cancel_record, encode_event, encode_slip, event_record, wait_record};
use flow::event::{EventKind, JobStatus};
use flow::slip::{Hold, HoldReason};
use serde_json::json;
use store::dead_letters::Original;
use store::letters::{Choice, list};
use test_kit::{Ground, TEST_TRACE, noise, sample_event, sample_job, sample_slip};

use crate::stage::{refused, start, until, until_taken_in};

/// The largest value that a topic takes, with room for key and frames.
const LARGEST_BYTES: usize = 1_048_576 - 1_000;

/// One good record of each topic that is followed.
fn good_records(ground: &Ground) -> Vec<Record> {
    let job = sample_job();
    let event = sample_event(job, EventKind::JobAccepted, JobStatus::Accepted, 0);
    let reason = HoldReason::Attention;
    let hold = Hold {
        slip: sample_slip(job, 1),
        queue: "default".to_owned(),
        reason,
        release_after_ms: None,
        signal: None,
        limit: None,
    };
    let cancel = Cancel {
        job,
        tenant: "default".into(),
        requested_by: "me".into(),
        reason: None,
        at_ms: 1,
        id: String::new(),
        requires: vec![],
    };
    vec![
        event_record(&ground.topics, &ground.writers, &event, &TEST_TRACE).unwrap(),
        wait_record(&ground.topics, &ground.writers, &Wait::Hold(hold), &TEST_TRACE).unwrap(),
        cancel_record(&ground.topics, &ground.writers, &cancel, &TEST_TRACE).unwrap(),
    ]
}

fn bad_values(value: &[u8]) -> Vec<Option<Vec<u8>>> {
    vec![
        Some(vec![]),
        Some([&[1], &value[1..]].concat()),
        Some(value[..value.len() / 2].to_vec()),
        Some([value, &[7]].concat()),
        Some(noise(LARGEST_BYTES)),
    ]
}

/// The same record under an id that the registry does not know, or gives to another schema: our own schemas read it.
fn lost_values(ground: &Ground, value: &[u8]) -> [Vec<u8>; 2] {
    [0x7fff_fff0, ground.writers.progress].map(|id: u32| [&[0], &id.to_be_bytes()[..], &value[5..]].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_records_of_every_topic_are_kept_byte_for_byte_and_the_partition_goes_on() {
    let ground = Ground::new().await;
    let mut bad = Vec::new();
    let mut sent = std::collections::BTreeMap::<String, usize>::new();
    for good in good_records(&ground) {
        let mut values = bad_values(good.value.as_deref().unwrap());
        if good.topic != ground.topics.cancels() {
            values.push(None);
        }
        let mut records: Vec<Record> = values.into_iter().map(|value| Record { value, ..good.clone() }).collect();
        records.push(Record {
            key: Some(vec![0xff, 0xfe]),
            value: Some(b"no".to_vec()),
            headers: Headers::from([("twice", Some([0xff])), ("twice", None)]),
            ..good.clone()
        });
        bad.extend(records.iter().cloned());
        let lost = lost_values(&ground, good.value.as_deref().unwrap());
        records.extend(lost.map(|value| Record { value: Some(value), ..good.clone() }));
        // The good one comes last, in the same partition.
        records.push(good);
        for record in &records {
            ground.send(record).await;
            *sent.entry(record.topic.clone()).or_default() += 1;
        }
    }
    // The last one may be of a later version: it is nothing bad.
    let of_later = r#"{"flow":"f","version":"v","revision":1,"document":{"flow":"f","teleport":true}}"#;
    for value in ["", "{", "{}", of_later] {
        let topic = ground.topics.flows();
        let record = Record {
            topic: topic.clone(),
            key: Some(b"f@v".to_vec()),
            value: Some(value.into()),
            headers: Headers::default(),
        };
        ground.send(&record).await;
        if value != of_later {
            bad.push(record);
        }
        *sent.entry(topic).or_default() += 1;
    }
    let running = start(&ground);
    for (topic, records) in &sent {
        until_taken_in(&ground, topic, *records).await;
    }
    assert_eq!(ground.sql("select count(*) from orchestrator.jobs"), "1");
    assert_eq!(ground.sql("select count(*) from orchestrator.holds"), "1");
    let mut letters = refused(&ground);
    for record in &bad {
        let same = |letter: &Inbound| {
            (&letter.key, &letter.value) == (&record.key, &record.value)
                && letter.headers.starts_with(&record.headers)
                && burial(letter)
                    .is_some_and(|burial| burial.failure.class == "unreadable" && burial.topic == record.topic)
        };
        let found = letters.iter().position(same);
        letters.remove(found.unwrap_or_else(|| panic!("no dead letter of {} {:?}", record.topic, record.key)));
    }
    assert!(letters.is_empty(), "{letters:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_this_version_does_not_know_is_said_and_a_tombstone_is_nothing_bad() {
    let ground = Ground::new().await;
    let running = start(&ground);
    let job = sample_job();
    let signal = Signal {
        job,
        tenant: "default".to_owned(),
        name: "meanwhile.approval".to_owned(),
        id: "1".to_owned(),
        payload: Some(json!(true)),
        at_ms: 1,
    };
    ground.send(&wait_record(&ground.topics, &ground.writers, &Wait::Signal(signal), &TEST_TRACE).unwrap()).await;
    ground.send(&events::cancel_tombstone(&ground.topics, job, &TEST_TRACE)).await;
    let topic = ground.topics.flows();
    ground.send(&Record { topic, key: Some(b"f@v".to_vec()), ..Record::default() }).await;
    until_taken_in(&ground, &ground.topics.waits(), 1).await;
    until_taken_in(&ground, &ground.topics.cancels(), 1).await;
    until_taken_in(&ground, &ground.topics.flows(), 1).await;
    let letters = refused(&ground);
    assert_eq!(letters.len(), 1);
    let burial = burial(&letters[0]).unwrap();
    assert_eq!(burial.failure.class, "unsupported");
    assert!(burial.failure.reason.contains("`meanwhile.approval`"), "{}", burial.failure.reason);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_indexed_where_they_lie_and_foreign_records_too() {
    let ground = Ground::new().await;
    let running = start(&ground);
    let original = Inbound {
        topic: "elsewhere".to_owned(),
        partition: 3,
        offset: 17,
        key: Some(vec![0, 0xff]),
        value: Some(noise(LARGEST_BYTES)),
        ..Inbound::default()
    };
    let letter = dead_letter::record(&ground.topics, &original, &Failure::once("too-large", "a\0b", 5));
    let (partition, offset) = ground.send(&letter).await;
    let topic = ground.topics.dead_letters();
    ground.send(&Record { topic: topic.clone(), value: Some(b"who wrote this?".to_vec()), ..Record::default() }).await;
    until_taken_in(&ground, &topic, 2).await;
    until(&ground, "select count(*) from orchestrator.dead_letters", "2").await;
    // As operators see them.
    let choice = Choice { topic: topic.clone(), ..Choice::default() };
    let letters = list(&ground.pool(store::Role::Ingest), &choice, None, 10).await.unwrap();
    let letters: Vec<_> = letters.into_iter().map(|letter| letter.letter).collect();
    let ours = letters.iter().find(|letter| letter.class == "too-large").unwrap();
    assert_eq!((&ours.topic, ours.partition, ours.offset), (&topic, partition, offset));
    assert_eq!(ours.original, Some(Original { topic: "elsewhere".to_owned(), partition: 3, offset: 17 }));
    assert_eq!((ours.reason.as_str(), ours.attempts, &ours.key), ("a\u{fffd}b", 1, &original.key));
    assert_eq!((ours.value_bytes as usize, &ours.headers), (LARGEST_BYTES, &letter.headers));
    let foreign = letters.iter().find(|letter| letter.class == "foreign").unwrap();
    assert_eq!((foreign.original.as_ref(), foreign.value_bytes), (None, 15));
    assert!(refused(&ground).is_empty(), "a dead letter is not buried again");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_says_which_flow_and_step_it_is_about_where_its_record_tells() {
    let ground = Ground::new().await;
    let running = start(&ground);
    let (topics, job) = (&ground.topics, sample_job());
    let slip = encode_slip(&ground.writers, &sample_slip(job, 2)).unwrap();
    let event = sample_event(job, EventKind::JobAccepted, JobStatus::Accepted, 0);
    let event = encode_event(&ground.writers, &event).unwrap();
    let failed = [
        (topics.steps("default"), "default/order/k", slip),
        (topics.steps("default"), "default/refund/k", b"noise".to_vec()),
        (topics.steps("default"), "no key of ours", b"noise".to_vec()),
        (topics.events(), "k", event),
        (topics.commands(), "k", br#"{"flow": "invoice"}"#.to_vec()),
        (topics.commands(), "k", b"{".to_vec()),
        (topics.commands_of("acme"), "k", br#"{"flow": "invoice"}"#.to_vec()),
    ];
    for (nth, (topic, key, value)) in failed.iter().enumerate() {
        let offset = i64::try_from(nth).unwrap();
        let (key, value) = (Some(key.as_bytes().to_vec()), Some(value.clone()));
        let record = Inbound { topic: topic.clone(), offset, key, value, ..Inbound::default() };
        ground.send(&dead_letter::record(topics, &record, &Failure::once("refused", "why", 5))).await;
    }
    until(&ground, "select count(*) from orchestrator.dead_letters", "7").await;
    let about = "select string_agg(coalesce(flow, '-') || '/' || coalesce(step, '-'), ' ' order by original_offset)
                 from orchestrator.dead_letters";
    assert_eq!(ground.sql(about), "order/s refund/- -/- order/- invoice/- -/- invoice/-");
    let whose = "select string_agg(coalesce(tenant, '-'), ' ' order by original_offset) from orchestrator.dead_letters";
    let of_jobs = sample_slip(job, 2).facts.tenant;
    assert_eq!(ground.sql(whose), format!("{of_jobs} default - {of_jobs} - - acme"));
    running.stop().await;
}
