//! Rule 3 on a real Kafka and Postgres: effects and offsets move together, and one bad record stops nothing.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "a test that meets an error fails")]

use std::time::Duration;

use bus::{FollowerOptions, Inbound, Record, RecordBatch};
use inbox::{Error, Inbox, Service};
use service_kit::{CancellationToken, Clock, Readiness};
use store::{Role, Tx, outbox};
use test_kit::{Ground, eventually};

/// Only ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(300);
/// Postgres' text takes no zero character, so a row with this topic is refused.
const NOT_STORABLE: &str = "a\0b";

/// Copies each record into the outbox, to the topic that its value names.
struct Copier {
    /// So many writes fail after they wrote.
    failures: usize,
}

impl Service for Copier {
    type Effects = Vec<Record>;

    async fn read(&mut self, batch: &RecordBatch) -> Result<Vec<Record>, Error> {
        let records = batch.parts.iter().flat_map(|part| &part.records);
        Ok(records.map(|record| copy(record, &String::from_utf8_lossy(record.value.as_ref().unwrap()))).collect())
    }

    fn refuse(&mut self, record: &Inbound, reason: &str) -> Vec<Record> {
        assert!(reason.contains("invalid byte sequence"), "{reason}");
        vec![copy(record, "refused")]
    }

    async fn write(&mut self, tx: &mut Tx, copies: &mut Vec<Record>) -> Result<(), Error> {
        outbox::append(tx, copies).await?;
        match self.failures.checked_sub(1) {
            None => Ok(()),
            Some(left) => {
                self.failures = left;
                Err(store::Error::Corrupt("this write fails on purpose".to_owned()).into())
            }
        }
    }

    fn committed(&mut self, _copies: Vec<Record>) {}
}

fn copy(record: &Inbound, topic: &str) -> Record {
    Record { topic: topic.to_owned(), key: Some(record.offset.to_string().into_bytes()), ..Record::default() }
}

/// Sends these values to one partition, and runs a copier until it has stored an offset behind them.
async fn copy_all(values: &[&str], failures: usize) -> Ground {
    let ground = Ground::new().await;
    let topic = ground.topics.commands();
    for value in values {
        let (key, value) = (Some(b"one".to_vec()), Some((*value).into()));
        let record = Record { topic: topic.clone(), key, value, ..Record::default() };
        ground.send(&record).await;
    }
    let (readiness, shutdown) = (Readiness::new(Clock::system(), "copier"), CancellationToken::new());
    let inbox = Inbox::new(ground.bus.clone(), ground.pool(Role::Notifier), readiness.clone());
    let options = FollowerOptions::new(format!("{}-copier", ground.topics.prefix()), [topic]);
    let leave = shutdown.clone();
    let running = tokio::spawn(async move { inbox.run(options, Copier { failures }, &leave).await });
    let wanted = values.len().to_string();
    eventually(PATIENCE, "all offsets are stored", async || {
        let stored = ground.sql("select coalesce(sum(next_offset), 0) from notifier.offsets");
        (stored == wanted).then_some(())
    })
    .await;
    shutdown.cancel();
    running.await.unwrap().unwrap();
    ground
}

fn offsets(ground: &Ground, topic: &str) -> Vec<String> {
    ground.outbox(topic).into_iter().map(|record| String::from_utf8(record.key.unwrap()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_stored_is_refused_alone_and_the_others_are_written_once() {
    let ground = copy_all(&["copied", "copied", NOT_STORABLE, "copied", NOT_STORABLE, "copied"], 0).await;
    assert_eq!(offsets(&ground, "copied"), ["0", "1", "3", "5"]);
    assert_eq!(offsets(&ground, "refused"), ["2", "4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_leaves_neither_effect_nor_offset_and_is_tried_again() {
    let ground = copy_all(&["copied", "copied", "copied"], 3).await;
    assert_eq!(offsets(&ground, "copied"), ["0", "1", "2"]);
}
