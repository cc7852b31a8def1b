//! The room of the in-process broker. A real Kafka keeps unread records, so it has no `DevCapacity`.

use std::sync::Arc;

use events::topic::Topics;

use super::InProcess;
use super::unread::{KEPT_BYTES_MAX, KEPT_RECORDS_MAX};

/// The kind of records to be written. The less they can wait, the more may be unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// New jobs: they are refused.
    NewJobs,
    /// Rows of the outbox: they wait in Postgres.
    OutboxRows,
    /// Results of steps: they wait in memory, but never until slips are read, which those who write them must do.
    StepResults,
}

impl Writes {
    /// The share of what the broker keeps that may be unread, in percent.
    const fn percent(self) -> u64 {
        match self {
            Self::NewJobs => 40,
            Self::OutboxRows => 60,
            Self::StepResults => 70,
        }
    }
}

/// Too many records of the in-process broker are unread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the broker of `meanwhile dev` holds {unread_kib} KiB in {records} records of {topic}[{partition}] that are still \
     to be read, and would drop the oldest at {} KiB or {KEPT_RECORDS_MAX} records; it goes on by itself once they are \
     read, or set KAFKA_BROKERS to a real Kafka, which keeps what is not read",
    KEPT_BYTES_MAX / 1024
)]
pub struct OverCapacity {
    topic: String,
    partition: i32,
    unread_kib: u64,
    records: usize,
}

/// Answers whether the in-process broker has room. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DevCapacity {
    in_process: Arc<InProcess>,
    topics: Topics,
}

impl DevCapacity {
    pub(crate) fn new(in_process: Arc<InProcess>, topics: Topics) -> Self {
        Self { in_process, topics }
    }

    /// Checks that there is room for these writes. A lack of room is logged once, until there is some again.
    ///
    /// # Errors
    /// The fullest partition, of those that carry slips, holds or events.
    pub fn check(&self, writes: Writes) -> Result<(), OverCapacity> {
        let mut unread = self.in_process.unread.lock();
        let counts = |topic: &str| match self.topics.queue_of(topic) {
            Some(_) => writes != Writes::StepResults,
            None => topic == self.topics.events() || topic == self.topics.waits(),
        };
        let over = unread.logs().filter(|(_, log)| log.is_over(writes.percent()));
        let fullest = over.filter(|(place, _)| counts(&place.topic)).max_by_key(|(_, log)| log.bytes());
        let over = fullest.map(|(place, log)| OverCapacity {
            topic: place.topic.clone(),
            partition: place.partition,
            unread_kib: log.bytes() / 1024,
            records: log.records(),
        });
        let Some(over) = over else {
            if writes == Writes::NewJobs && std::mem::replace(&mut unread.is_reported, false) {
                tracing::info!("there is room for new work again");
            }
            return Ok(());
        };
        if !std::mem::replace(&mut unread.is_reported, true) {
            tracing::warn!(reason = %over, "new work waits for room");
        }
        Err(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offset_commit::OffsetCommit;
    use events::place::TopicPartition;

    const KIB: usize = 1024;

    fn broker() -> (Arc<InProcess>, DevCapacity) {
        let in_process = InProcess::start().unwrap();
        let capacity = DevCapacity::new(Arc::clone(&in_process), Topics::new("t"));
        (in_process, capacity)
    }

    fn commit(in_process: &InProcess, topic: &str, partition: i32, next_offset: i64) {
        let commit = OffsetCommit { topic: topic.to_owned(), partition, next_offset, metadata: None };
        in_process.commit("g", vec![commit]);
    }

    #[test]
    fn work_is_refused_by_how_much_is_unread_and_new_work_first() {
        let (in_process, capacity) = broker();
        let verdicts =
            || [Writes::NewJobs, Writes::OutboxRows, Writes::StepResults].map(|writes| capacity.check(writes).is_ok());
        commit(&in_process, "t.steps.q", 0, 0);
        commit(&in_process, "t.events", 1, 0);
        in_process.wrote("t.steps.q", 0, 0, 2_000 * KIB);
        assert_eq!(verdicts(), [true, true, true]);
        in_process.wrote("t.steps.q", 0, 1, 500 * KIB);
        assert_eq!(verdicts(), [false, true, true]);
        in_process.wrote("t.steps.q", 0, 2, 1_400 * KIB);
        assert_eq!(verdicts(), [false, false, true], "results of steps do not wait for slips");
        commit(&in_process, "t.steps.q", 0, 2);
        assert_eq!(verdicts(), [true, true, true]);
        in_process.wrote("t.events", 1, 0, 3_700 * KIB);
        assert_eq!(verdicts(), [false, false, false]);
        let told = capacity.check(Writes::NewJobs).unwrap_err().to_string();
        assert!(told.contains("3700 KiB") && told.contains("t.events[1]") && told.contains("KAFKA_BROKERS"), "{told}");
    }

    #[test]
    fn the_slowest_reader_counts_until_it_is_gone() {
        let (in_process, capacity) = broker();
        let (quick, slow) = (in_process.reader(), in_process.reader());
        let place = TopicPartition::new("t.waits", 0);
        for reader in [&quick, &slow] {
            reader.starts(&place, 0);
        }
        in_process.wrote("t.waits", 0, 0, 3_000 * KIB);
        quick.moved(&place, 1);
        assert!(capacity.check(Writes::NewJobs).is_err());
        slow.moved(&place, 1);
        assert!(capacity.check(Writes::NewJobs).is_ok());
        in_process.wrote("t.waits", 0, 1, 3_000 * KIB);
        quick.moved(&place, 2);
        assert!(capacity.check(Writes::NewJobs).is_err());
        drop(slow);
        assert!(capacity.check(Writes::NewJobs).is_ok());
        quick.moved(&TopicPartition::new("t.waits", 1), 9);
    }

    #[test]
    fn many_small_records_fill_it_too_and_what_carries_no_job_does_not_count() {
        let (in_process, capacity) = broker();
        commit(&in_process, "t.steps.q", 0, 0);
        for offset in 0..40_001 {
            in_process.wrote("t.steps.q", 0, offset, 1);
            in_process.wrote("t.progress", 0, offset, 1_000);
        }
        assert!(capacity.check(Writes::NewJobs).unwrap_err().to_string().contains("40001 records of t.steps.q[0]"));
        let kept = in_process.unread.lock().logs().map(|(_, log)| log.bytes()).max();
        assert!(kept.is_some_and(|bytes| bytes <= KEPT_BYTES_MAX), "{kept:?}");
        commit(&in_process, "t.steps.q", 0, 40_001);
        assert!(capacity.check(Writes::NewJobs).is_ok());
    }
}
