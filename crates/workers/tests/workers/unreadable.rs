//! Records that nobody can read or follow: kept byte for byte, and the partition goes on.

use events::dead_letter::burial;
use events::headers::Headers;
use events::wait::Wait;
use events::{Record, slip_record};
use flow::event::JobStatus;
use serde_json::json;
use test_kit::{noise, read_topic};

use crate::stage::{ONE_STEP, Stage, trace, workers_of_one_step};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_records_are_kept_byte_for_byte_and_the_partition_goes_on() {
    let stage = Stage::new(ONE_STEP).await;
    let (slip, queue, _) = Stage::new(ONE_STEP).await.accept(json!({}));
    let good = slip_record(&stage.topics, &stage.writers, &queue, &slip, &trace()).unwrap();
    let value = good.value.clone().unwrap();
    let other_kind = [&[0], &stage.writers.job_event.to_be_bytes()[..], &value[6..]].concat();
    let framed_noise = [&value[..5], &noise(1_000_000)].concat();
    let of_value = |value: Option<Vec<u8>>| Record { value, ..good.clone() };
    let bad = [
        ("unreadable", of_value(None)),
        ("unreadable", of_value(Some(vec![]))),
        ("unreadable", of_value(Some([&[1], &value[1..]].concat()))),
        ("unreadable", of_value(Some(other_kind))),
        ("unreadable", of_value(Some(value[..value.len() / 2].to_vec()))),
        ("unreadable", of_value(Some([&value[..], &[7]].concat()))),
        ("unreadable", Record { key: Some(vec![0xff, 0xfe]), ..good.clone() }),
        ("unreadable", Record { key: None, ..good.clone() }),
        ("unreadable", of_value(Some(noise(1_048_576 - 1_000)))),
        ("unreadable", of_value(Some(framed_noise))),
    ];
    let running = stage.work("a", workers_of_one_step());
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
async fn slips_are_read_though_the_registry_has_lost_their_schema_or_gives_its_id_to_another() {
    let stage = Stage::new(ONE_STEP).await;
    let running = stage.work("a", workers_of_one_step());
    for id in [0x7fff_fff0, stage.writers.job_event] {
        let (slip, queue, _) = stage.accept(json!({}));
        let mut record = slip_record(&stage.topics, &stage.writers, &queue, &slip, &trace()).unwrap();
        record.value.as_mut().unwrap()[1..5].copy_from_slice(&id.to_be_bytes());
        stage.send(record).await;
    }
    let ends = stage.ends().await;
    assert!(ends.len() == 2 && ends.iter().all(|end| end.status == JobStatus::Succeeded), "{ends:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slip_that_nobody_can_read_rests_for_a_while() {
    let stage = Stage::new(ONE_STEP).await;
    let running = stage.work("a", workers_of_one_step());
    let value = [&[0, 0x7f, 0xff, 0xff, 0xf0][..], b"neither"].concat();
    let record = Record {
        topic: stage.topics.steps("default"),
        key: Some(b"k".to_vec()),
        value: Some(value),
        headers: Headers::default(),
    };
    stage.send(record.clone()).await;
    let unread = test_kit::eventually(crate::stage::PATIENCE, "a slip at rest", async || {
        let waits = read_topic(&stage.bus.brokers, &stage.topics.waits()).await.unwrap();
        waits.iter().find_map(|record| match stage.decode_wait(record) {
            Some(Wait::Unread(unread)) => Some(unread),
            _ => None,
        })
    });
    let unread = unread.await;
    assert_eq!((unread.record.key, unread.record.value), (record.key, record.value));
    assert!(read_topic(&stage.bus.brokers, &stage.topics.dead_letters()).await.unwrap().is_empty());
    running.stop().await;
}
