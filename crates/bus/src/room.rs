//! How much the in-process broker holds that somebody still has to read.
//!
//! It drops the oldest records of a partition that is full, whether they were read or not; a slip among them would be a
//! lost job. So what is written is counted here until everybody who reads the partition has read it (the workers: has
//! committed it), and while much is unread, work is refused or waits. A real Kafka keeps what is not read: no `Room`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use events::topic::Topics;

use crate::{BrokerKind, Settings};

/// What librdkafka's mock broker keeps of a partition: bytes, and batches of records.
const KEPT_BYTES_MAX: u64 = 5 * 1024 * 1024;
const KEPT_RECORDS_MAX: usize = 100_000;
/// Taken on top of each record's own bytes: it may be alone in its batch.
const FRAME_BYTES: u64 = 100;

/// What somebody wants to write, as far as it can wait. The less it can, the more may be unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// New jobs: refused.
    New,
    /// Rows of the outbox: they wait in Postgres.
    Stored,
    /// Results of steps: they wait in memory, but never for slips to be read, which is up to those who write them.
    UnderWay,
}

impl Work {
    /// The share of what the broker keeps that may be unread, in percent.
    const fn percent(self) -> u64 {
        match self {
            Self::New => 40,
            Self::Stored => 60,
            Self::UnderWay => 70,
        }
    }
}

/// Too much is unread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the broker of `meanwhile dev` holds {unread_kib} KiB in {records} records of {topic}[{partition}] that are still \
     to be read, and would drop the oldest at {} KiB or {KEPT_RECORDS_MAX} records; it goes on by itself once they are \
     read, or set KAFKA_BROKERS to a real Kafka, which keeps what is not read",
    KEPT_BYTES_MAX / 1024
)]
pub struct Full {
    topic: String,
    partition: i32,
    unread_kib: u64,
    records: usize,
}

/// One partition.
#[derive(Debug, Default)]
struct Log {
    /// Offset and bytes of what is unread.
    unread: VecDeque<(i64, u64)>,
    bytes: u64,
    /// The next offset of each who reads it.
    readers: BTreeMap<String, i64>,
}

impl Log {
    fn trim(&mut self) {
        let floor = self.readers.values().min().copied().unwrap_or(0);
        // What nobody reads (progress) is counted up to what the broker keeps.
        let kept = |log: &Self| log.bytes <= KEPT_BYTES_MAX && log.unread.len() <= KEPT_RECORDS_MAX;
        while self.unread.front().is_some_and(|(offset, _)| *offset < floor || !kept(&*self)) {
            self.bytes -= self.unread.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }

    fn is_over(&self, percent: u64) -> bool {
        let records = u64::try_from(self.unread.len()).unwrap_or(u64::MAX);
        self.bytes * 100 > KEPT_BYTES_MAX * percent || records * 100 > KEPT_RECORDS_MAX as u64 * percent
    }
}

#[derive(Debug, Default)]
struct Logs {
    logs: BTreeMap<(String, i32), Log>,
    told: bool,
}

/// By the broker's address.
static BROKERS: Mutex<BTreeMap<String, Logs>> = Mutex::new(BTreeMap::new());

fn lock() -> MutexGuard<'static, BTreeMap<String, Logs>> {
    BROKERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn change(brokers: &str, topic: &str, partition: i32, change: impl FnOnce(&mut Log)) {
    let mut all = lock();
    let logs = &mut all.entry(brokers.to_owned()).or_default().logs;
    let log = logs.entry((topic.to_owned(), partition)).or_default();
    change(log);
    log.trim();
}

/// A record has been written.
pub(crate) fn wrote(brokers: &str, topic: &str, partition: i32, offset: i64, bytes: usize) {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(FRAME_BYTES);
    change(brokers, topic, partition, |log| {
        log.unread.push_back((offset, bytes));
        log.bytes += bytes;
    });
}

/// A group has committed: up to there it reads nothing again.
pub(crate) fn committed(brokers: &str, group: &str, topic: &str, partition: i32, next_offset: i64) {
    change(brokers, topic, partition, |log| {
        log.readers.insert(format!("group {group}"), next_offset);
    });
}

/// The broker is gone.
pub(crate) fn forget(brokers: &str) {
    lock().remove(brokers);
}

/// One reader without committed offsets: what was delivered to it is read.
#[derive(Debug)]
pub(crate) struct Reader {
    brokers: String,
    name: String,
}

impl Reader {
    pub(crate) fn new(brokers: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("reader {}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self { brokers: brokers.to_owned(), name }
    }

    /// It reads this partition from there on.
    pub(crate) fn starts(&self, topic: &str, partition: i32, next_offset: i64) {
        change(&self.brokers, topic, partition, |log| {
            log.readers.insert(self.name.clone(), next_offset);
        });
    }

    /// It has come to there, or gone back to there. Means nothing where it has not started.
    pub(crate) fn stands(&self, topic: &str, partition: i32, next_offset: i64) {
        change(&self.brokers, topic, partition, |log| {
            if let Some(known) = log.readers.get_mut(&self.name) {
                *known = next_offset;
            }
        });
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut all = lock();
        for log in all.get_mut(&self.brokers).into_iter().flat_map(|logs| logs.logs.values_mut()) {
            log.readers.remove(&self.name);
            log.trim();
        }
    }
}

/// Where it is asked whether there is room. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Room {
    brokers: String,
    topics: Topics,
}

impl Room {
    /// None on a real Kafka: there is always room.
    pub fn of(settings: &Settings, topics: &Topics) -> Option<Self> {
        let in_process = settings.kind == BrokerKind::InProcess;
        in_process.then(|| Self { brokers: settings.brokers.clone(), topics: topics.clone() })
    }

    /// Whether this work may be written now. That there is no room is logged once, until there is some again.
    ///
    /// # Errors
    /// The fullest partition, of those that carry slips, holds or events.
    pub fn check(&self, work: Work) -> Result<(), Full> {
        let mut all = lock();
        let Some(logs) = all.get_mut(&self.brokers) else { return Ok(()) };
        let counts = |topic: &str| match self.topics.queue_of(topic) {
            Some(_) => work != Work::UnderWay,
            None => topic == self.topics.events() || topic == self.topics.waits(),
        };
        let over = logs.logs.iter().filter(|(_, log)| log.is_over(work.percent()));
        let fullest = over.filter(|((topic, _), _)| counts(topic)).max_by_key(|(_, log)| log.bytes);
        let full = fullest.map(|((topic, partition), log)| Full {
            topic: topic.clone(),
            partition: *partition,
            unread_kib: log.bytes / 1024,
            records: log.unread.len(),
        });
        match full {
            Some(full) => {
                if !std::mem::replace(&mut logs.told, true) {
                    tracing::warn!(reason = %full, "new work waits for room");
                }
                Err(full)
            }
            None => {
                if work == Work::New && std::mem::replace(&mut logs.told, false) {
                    tracing::info!("there is room for new work again");
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    fn room(brokers: &str) -> Room {
        let settings = Settings { kind: BrokerKind::InProcess, ..Settings::new(brokers, "") };
        Room::of(&settings, &Topics::new("t")).unwrap()
    }

    #[test]
    fn work_is_refused_by_how_much_is_unread_and_new_work_first() {
        let room = room("by-share");
        let verdicts = || [Work::New, Work::Stored, Work::UnderWay].map(|work| room.check(work).is_ok());
        committed("by-share", "g", "t.steps.q", 0, 0);
        committed("by-share", "g", "t.events", 1, 0);
        wrote("by-share", "t.steps.q", 0, 0, 2_000 * KIB);
        assert_eq!(verdicts(), [true, true, true]);
        wrote("by-share", "t.steps.q", 0, 1, 500 * KIB);
        assert_eq!(verdicts(), [false, true, true]);
        wrote("by-share", "t.steps.q", 0, 2, 1_400 * KIB);
        assert_eq!(verdicts(), [false, false, true], "what is under way does not wait for slips");
        committed("by-share", "g", "t.steps.q", 0, 2);
        assert_eq!(verdicts(), [true, true, true]);
        wrote("by-share", "t.events", 1, 0, 3_700 * KIB);
        assert_eq!(verdicts(), [false, false, false]);
        let told = room.check(Work::New).unwrap_err().to_string();
        assert!(told.contains("3700 KiB") && told.contains("t.events[1]") && told.contains("KAFKA_BROKERS"), "{told}");
        forget("by-share");
        assert_eq!(verdicts(), [true, true, true]);
    }

    #[test]
    fn the_slowest_reader_counts_until_it_is_gone() {
        let room = room("by-reader");
        let (quick, slow) = (Reader::new("by-reader"), Reader::new("by-reader"));
        for reader in [&quick, &slow] {
            reader.starts("t.waits", 0, 0);
        }
        wrote("by-reader", "t.waits", 0, 0, 3_000 * KIB);
        quick.stands("t.waits", 0, 1);
        assert!(room.check(Work::New).is_err());
        slow.stands("t.waits", 0, 1);
        assert!(room.check(Work::New).is_ok());
        wrote("by-reader", "t.waits", 0, 1, 3_000 * KIB);
        quick.stands("t.waits", 0, 2);
        drop(slow);
        assert!(room.check(Work::New).is_ok());
        quick.stands("t.waits", 1, 9);
        forget("by-reader");
    }

    #[test]
    fn many_small_records_fill_it_too_and_what_carries_no_job_does_not_count() {
        let room = room("by-count");
        committed("by-count", "g", "t.steps.q", 0, 0);
        for offset in 0..40_001 {
            wrote("by-count", "t.steps.q", 0, offset, 1);
            wrote("by-count", "t.progress", 0, offset, 1_000);
        }
        assert!(room.check(Work::New).unwrap_err().to_string().contains("40001 records of t.steps.q[0]"));
        assert!(lock()["by-count"].logs[&("t.progress".to_owned(), 0)].bytes <= KEPT_BYTES_MAX);
        committed("by-count", "g", "t.steps.q", 0, 40_001);
        assert!(room.check(Work::New).is_ok());
        forget("by-count");
    }

    #[test]
    fn a_real_kafka_always_has_room() {
        assert!(Room::of(&Settings::new("kafka:9092", ""), &Topics::new("t")).is_none());
    }
}
