//! Records that nobody can read or follow: kept byte for byte, and the partition goes on.

use events::dead_letter::burial;
use events::{Record, slip_record};
use flow::event::JobStatus;
use serde_json::json;
use test_kit::{noise, read_topic};
use workers::Workers;

use crate::stage::{Stage, trace};

const FLOW: &str = r#"
flow: one
key: "k"
steps:
  - { id: one, native: nothing }
"#;

fn workers() -> Workers {
    Workers::builder().native("nothing", async |_| Ok(json!({}))).build()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_records_are_kept_byte_for_byte_and_the_partition_goes_on() {
    let stage = Stage::new(FLOW).await;
    let (slip, queue, _) = Stage::new(FLOW).await.accept(json!({}));
    let good = slip_record(&stage.topics, &stage.writers, &queue, &slip, &trace()).unwrap();
    let value = good.value.clone().unwrap();
    let unknown_id = [&[0, 0x7f, 0xff, 0xff, 0xf0], &value[5..]].concat();
    let other_kind = [&[0], &stage.writers.job_event.to_be_bytes()[..], &value[5..]].concat();
    let of_value = |value: Option<Vec<u8>>| Record { value, ..good.clone() };
    let bad = [
        ("unreadable", of_value(None)),
        ("unreadable", of_value(Some(vec![]))),
        ("unreadable", of_value(Some([&[1], &value[1..]].concat()))),
        ("unreadable", of_value(Some(unknown_id))),
        ("unreadable", of_value(Some(other_kind))),
        ("unreadable", of_value(Some(value[..value.len() / 2].to_vec()))),
        ("unreadable", of_value(Some([&value[..], &[7]].concat()))),
        ("unreadable", Record { key: Some(vec![0xff, 0xfe]), ..good.clone() }),
        ("unreadable", Record { key: None, ..good.clone() }),
        ("unreadable", of_value(Some(noise(1_048_576 - 1_000)))),
        ("unreadable", of_value(Some([&[0, 0, 0, 0, 1], &noise(1_000_000)[..]].concat()))),
    ];
    let running = stage.work("a", workers());
    for (_, record) in &bad {
        stage.send(record.clone()).await;
    }
    stage.submit(json!({})).await;
    assert_eq!(stage.ends().await[0].status, JobStatus::Succeeded);
    let letters = test_kit::eventually(crate::stage::PATIENCE, "all dead letters", async || {
        let letters = read_topic(&stage.bus.brokers, &stage.topics.dead_letters()).await.unwrap();
        Some(letters).filter(|letters| letters.len() >= bad.len())
    });
    let mut letters = letters.await;
    running.stop().await;
    for (class, record) in &bad {
        let same = |letter: &events::Inbound| {
            letter.key == record.key
                && letter.value == record.value
                && letter.headers.starts_with(&record.headers)
                && burial(letter).is_some_and(|burial| {
                    burial.failure.class == *class && burial.topic == stage.topics.steps("default")
                })
        };
        let found = letters.iter().position(same);
        letters.remove(found.unwrap_or_else(|| panic!("no dead letter of {:?}", record.key)));
    }
    assert!(letters.is_empty(), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_that_comes_late_is_found_and_one_that_never_comes_is_a_dead_letter() {
    let stage = Stage::new(FLOW).await;
    let running = stage.work("a", workers());
    let mut elsewhere = Stage::new(&FLOW.replace("flow: one", "flow: late")).await;
    elsewhere.topics = stage.topics.clone();
    elsewhere.publish(&elsewhere.definition).await;
    elsewhere.submit(json!({})).await;
    assert_eq!(elsewhere.ends().await[0].status, JobStatus::Succeeded);

    let mut never = Stage::new(&FLOW.replace("flow: one", "flow: never")).await;
    never.topics = stage.topics.clone();
    never.submit(json!({})).await;
    let letters = test_kit::eventually(crate::stage::PATIENCE, "a dead letter", async || {
        let letters = read_topic(&stage.bus.brokers, &stage.topics.dead_letters()).await.unwrap();
        Some(letters).filter(|letters| !letters.is_empty())
    });
    let burial = burial(&letters.await[0]).unwrap();
    assert_eq!(burial.failure.class, "unknown-flow");
    assert!(burial.failure.reason.contains("never@"), "{}", burial.failure.reason);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_native_step_that_nobody_has_rests_with_its_token() {
    let stage = Stage::new(FLOW).await;
    let running = stage.work("a", Workers::builder().build());
    stage.submit(json!({})).await;
    let tokens = test_kit::eventually(crate::stage::PATIENCE, "a hold", async || {
        let tokens = test_kit::Tokens::read_back(&stage.bus.brokers, &stage.bus.registry_url, stage.topics.prefix());
        Some(tokens.await.unwrap()).filter(|tokens| !tokens.holds.is_empty())
    });
    let tokens = tokens.await;
    running.stop().await;
    assert_eq!((tokens.holds.len(), tokens.holds[0].reason), (1, flow::slip::HoldReason::MissingStep));
    assert_eq!((tokens.slips.len(), tokens.dead_letters), (1, 0));
}
