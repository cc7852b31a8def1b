//! Records of later versions are stored and passed on: no word that this version does not know costs a job anything.

use bus::Registry;
use events::wait::Wait;
use events::{Record, RecordKind, encode_slip, event_record, slip_record, wait_record};
use flow::event::{EventKind, JobStatus};
use flow::slip::{Hold, HoldReason, Slip};
use serde_json::json;
use test_kit::{Ground, TEST_TRACE, sample_event, sample_job, sample_slip};

use crate::stage::{refused, start, stored, until, until_taken_in};

fn hold(ground: &Ground, slip: Slip, release_after_ms: u64) -> Record {
    let (queue, reason, release_after_ms) = ("default".to_owned(), HoldReason::Backoff, Some(release_after_ms));
    let hold = Wait::Hold(Hold { slip, queue, reason, release_after_ms, signal: None, limit: None });
    wait_record(&ground.topics, &ground.writers, &hold, &TEST_TRACE).unwrap()
}

/// The record with one word in it changed to another of the same length.
fn reworded(record: Record, word: &str, other: &str) -> Record {
    assert_eq!(word.len(), other.len());
    let mut value = record.value.clone().unwrap();
    let at = value.windows(word.len()).position(|bytes| bytes == word.as_bytes()).unwrap();
    value[at..at + word.len()].copy_from_slice(other.as_bytes());
    Record { value: Some(value), ..record }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_of_a_later_reason_is_released_at_its_time() {
    let ground = Ground::new().await;
    let running = start(&ground);
    let slip = sample_slip(sample_job(), 2);
    ground.send(&reworded(hold(&ground, slip.clone(), 1), "backoff", "breaker")).await;
    until(&ground, "select count(*) from outbox.messages", "1").await;
    let wanted = slip_record(&ground.topics, &ground.writers, "default", &slip, &TEST_TRACE).unwrap();
    assert_eq!(ground.outbox(&wanted.topic), [wanted]);
    ground.send(&reworded(hold(&ground, sample_slip(sample_job(), 2), 3_600_000), "backoff", "breaker")).await;
    until(&ground, "select reason from orchestrator.holds", "breaker").await;
    assert!(refused(&ground).is_empty());
    running.stop().await;
}

/// A slip as a later version writes it, which has a field more.
async fn slip_of_later_version(ground: &Ground, slip: &Slip) -> Vec<u8> {
    let mut schema: serde_json::Value = serde_json::from_str(RecordKind::Slip.latest()).unwrap();
    let field = json!({ "name": "later", "type": "string", "default": "" });
    schema["fields"].as_array_mut().unwrap().push(field);
    let registry = Registry::new(&ground.bus.registry_url, None).unwrap();
    let subject = format!("{}-value", ground.topics.steps("default"));
    let id = registry.register(&subject, &schema.to_string()).await.unwrap();
    let value = encode_slip(&ground.writers, slip).unwrap();
    // Its value: one character.
    [&[0], &id.to_be_bytes()[..], &value[5..], &[2, b'x']].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_sends_the_slip_of_a_later_version_on_byte_for_byte() {
    let ground = Ground::new().await;
    let running = start(&ground);
    let slip = sample_slip(sample_job(), 2);
    let value = slip_of_later_version(&ground, &slip).await;
    let wait = hold(&ground, slip.clone(), 1);
    let (before, inside) = (wait.value.clone().unwrap(), encode_slip(&ground.writers, &slip).unwrap());
    let at = before.windows(inside.len()).position(|bytes| bytes == inside).unwrap();
    // Before it stands its length, as a zigzag number of two bytes.
    let length = u32::try_from(value.len()).unwrap() << 1;
    let length = [(length & 0x7f) as u8 | 0x80, (length >> 7) as u8];
    assert!((64..8_192).contains(&inside.len()) && value.len() < 8_192);
    let changed = [&before[..at - 2], &length, &value, &before[at + inside.len()..]].concat();
    ground.send(&Record { value: Some(changed), ..wait }).await;
    until(&ground, "select count(*) from outbox.messages", "1").await;
    let wanted = slip_record(&ground.topics, &ground.writers, "default", &slip, &TEST_TRACE).unwrap();
    assert_eq!(ground.outbox(&wanted.topic), [Record { value: Some(value), ..wanted }]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_of_a_later_kind_rests_as_it_is_and_is_sent_again() {
    let ground = Ground::new().await;
    let running = start(&ground);
    let record = reworded(hold(&ground, sample_slip(sample_job(), 2), 1), "hold", "join");
    ground.send(&record).await;
    until(&ground, "select reason from orchestrator.holds", "missing-step").await;
    until_taken_in(&ground, &ground.topics.waits(), 1).await;
    assert_eq!(ground.sql("select release_at > now() + interval '4 seconds' from orchestrator.holds"), "t");
    ground.sql("update orchestrator.holds set release_at = now()");
    ground.send(&hold(&ground, sample_slip(sample_job(), 2), 1)).await;
    until(&ground, "select count(*) from orchestrator.holds", "0").await;
    assert_eq!(ground.outbox(&record.topic), [record]);
    assert!(refused(&ground).is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_a_later_kind_is_in_the_history_and_what_follows_is_too() {
    let ground = Ground::new().await;
    let running = start(&ground);
    let job = sample_job();
    let word = |word| (EventKind::read(word).unwrap(), JobStatus::read("checking").unwrap());
    let (checked, checking) = word("step.checked");
    for (hop, (kind, status)) in [
        (EventKind::JobAccepted, JobStatus::Accepted),
        (checked, checking),
        (EventKind::JobSucceeded, JobStatus::Succeeded),
    ]
    .into_iter()
    .enumerate()
    {
        let event = sample_event(job, kind, status, u32::try_from(hop).unwrap());
        ground.send(&event_record(&ground.topics, &ground.writers, &event, &TEST_TRACE).unwrap()).await;
        until(&ground, "select status from orchestrator.jobs", status.as_str()).await;
    }
    let (_, _, kinds) = stored(&ground, job).await;
    assert_eq!(kinds, ["job.accepted", "step.checked", "job.succeeded"]);
    assert!(refused(&ground).is_empty());
    running.stop().await;
}
