//! The backlog of a consumer group: the number of unread records and the age of the oldest. For figures, not for
//! decisions.
//!
//! Offsets alone are not enough: transaction markers take offsets too, so an idle topic would always seem to lag.
//! So the first records of each partition are read. If there are no others, the count is exact; else it is estimated
//! from their density.
//!
//! Invariant: joins no group, commits nothing, and never waits for a transaction of the group that is looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::connection::{Connection, metadata};
use crate::consumer::TopicPartition;
use crate::renewing::Lookup;
use crate::{Error, Settings};

/// One request to the brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Reading the first records of one topic's partitions.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Records read of one partition, at most.
const SAMPLE_RECORDS_MAX: u64 = 500;
/// Bytes read of one partition, about: a batch of records is not divided.
const SAMPLE_BYTES_MAX: usize = 64 * 1024;
/// The longest poll, between two looks at the clock.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The longest wait for a leader that is being found: just after a start or a creation.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause between tries.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The backlog of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The partition, and its topic.
    pub place: TopicPartition,
    /// The offset that the group has committed; where it has none, the log's first.
    pub offset: i64,
    /// The metadata of that commit.
    pub metadata: String,
    /// The log's end.
    pub end: i64,
    /// Records from the offset on.
    pub records: u64,
    /// The offset of the first of them.
    pub first: Option<i64>,
    /// The time at which the first of them was written, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
}

/// The first records of a partition.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    records: u64,
    bytes: usize,
    first_offset: Option<i64>,
    oldest_ms: Option<i64>,
    last_offset: i64,
    /// True if the sample has all records of the partition.
    whole: bool,
}

impl Sample {
    fn is_done(&self) -> bool {
        self.whole || self.records >= SAMPLE_RECORDS_MAX || self.bytes >= SAMPLE_BYTES_MAX
    }

    /// The number of records from `start` to `end`.
    fn records(&self, start: i64, end: i64) -> u64 {
        let (all, seen) = ((end - start).max(0) as u64, (self.last_offset + 1 - start).max(1) as u64);
        if self.whole || all <= seen { self.records } else { all * self.records / seen }
    }
}

/// The partitions of a look.
enum Looked {
    /// Those of every topic whose name begins so, from the group's committed offsets.
    Topics(String),
    /// These, from the offsets beside them.
    Offsets(BTreeMap<TopicPartition, i64>),
}

/// Looks at topics on behalf of a group. Cheap to clone; one look at a time.
#[derive(Clone)]
pub struct Backlog(Arc<Shared>);

struct Shared {
    settings: Settings,
    group: String,
    /// Committed offsets, without waiting for transactions that are about to commit others.
    positions: Lookup,
    /// Everything else, `read_committed`.
    reader: Lookup,
    /// The range of offsets in which a partition was seen to hold only transaction markers.
    empty: Mutex<BTreeMap<TopicPartition, (i64, i64)>>,
}

impl std::fmt::Debug for Backlog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backlog").field("group", &self.0.group).finish_non_exhaustive()
    }
}

impl Backlog {
    /// Connects in the background; fails only for settings that make no client.
    pub fn new(settings: &Settings, group: &str) -> Result<Self, Error> {
        let properties =
            [("group.id", group), ("enable.auto.commit", "false"), ("isolation.level", "read_uncommitted")];
        let positions = Lookup::connect("backlog positions", settings, &properties)?;
        let (own_group, bytes) = (format!("{group}-backlog"), SAMPLE_BYTES_MAX.to_string());
        let properties = [
            ("group.id", own_group.as_str()),
            ("enable.auto.commit", "false"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "error"),
            ("fetch.message.max.bytes", &bytes),
            ("fetch.wait.max.ms", "10"),
            ("fetch.queue.backoff.ms", "10"),
            ("queued.max.messages.kbytes", "4096"),
        ];
        let reader = Lookup::connect("backlog", settings, &properties)?;
        let (settings, group) = (settings.clone(), group.to_owned());
        Ok(Self(Arc::new(Shared { settings, group, positions, reader, empty: Mutex::default() })))
    }

    /// The backlog of every partition of every topic whose name begins with `start`.
    pub async fn look(&self, start: &str) -> Result<Vec<Waiting>, Error> {
        self.look_at(Looked::Topics(start.to_owned())).await
    }

    /// The records of each of these partitions from the offset beside it on: those that a service which keeps its
    /// offsets elsewhere has not read.
    pub async fn look_from(&self, offsets: BTreeMap<TopicPartition, i64>) -> Result<Vec<Waiting>, Error> {
        self.look_at(Looked::Offsets(offsets)).await
    }

    /// The ends of all that is written in the topics whose names begin so: records of transactions that are not over
    /// lie below them, too. ([`Waiting::end`] lies behind such a record only once its transaction is over.)
    pub async fn written(&self, starts: &[String]) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let (shared, starts) = (Arc::clone(&self.0), starts.to_vec());
        patiently(move || {
            shared.positions.look(|positions| {
                let mut ends = BTreeMap::new();
                for start in &starts {
                    for place in places(positions, start)? {
                        let (_, end) = positions.fetch_watermarks(&place.topic, place.partition, REQUEST_TIMEOUT)?;
                        ends.insert(place, end);
                    }
                }
                Ok(ends)
            })
        })
        .await
    }

    async fn look_at(&self, looked_at: Looked) -> Result<Vec<Waiting>, Error> {
        let shared = Arc::clone(&self.0);
        patiently(move || shared.reader.look(|reader| shared.look(reader, &looked_at))).await
    }
}

/// Looks, for as long as a leader is being found.
async fn patiently<T: Send + 'static>(look: impl Fn() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let looked = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match look() {
                Err(error) if error.is_transient() && Instant::now() < deadline => {
                    std::thread::sleep(RETRY_INTERVAL);
                }
                found => break found,
            }
        }
    });
    looked.await.unwrap_or_else(|error| Err(Error::refused(format!("a look did not end: {error}"))))
}

impl Shared {
    fn look(&self, reader: &BaseConsumer<Connection>, looked_at: &Looked) -> Result<Vec<Waiting>, Error> {
        let mut empty = self.empty.lock();
        let (places, committed) = match looked_at {
            Looked::Topics(start) => {
                let places = places(reader, start)?;
                let committed = self.committed(&places)?;
                (places, committed)
            }
            Looked::Offsets(offsets) => {
                let known = |(place, offset): (&TopicPartition, &i64)| (place.clone(), (*offset, String::new()));
                (offsets.keys().cloned().collect(), offsets.iter().map(known).collect())
            }
        };
        let mut waiting = Vec::with_capacity(places.len());
        let mut due: BTreeMap<String, Vec<(i32, i64, i64)>> = BTreeMap::new();
        for place in places {
            let (log_start, end) = reader.fetch_watermarks(&place.topic, place.partition, REQUEST_TIMEOUT)?;
            let (offset, metadata) = committed.get(&place).cloned().unwrap_or((log_start, String::new()));
            let first = offset.max(log_start);
            if first < end && empty.get(&place) != Some(&(first, end)) {
                due.entry(place.topic.clone()).or_default().push((place.partition, first, end));
            }
            waiting.push(Waiting { place, offset, metadata, end, records: 0, first: None, oldest_ms: None });
        }
        for (topic, due) in due {
            let samples = samples(reader, &topic, &due);
            reader.unassign()?;
            for (partition, sample) in samples? {
                let Some((_, first, end)) = due.iter().find(|(due, ..)| *due == partition) else { continue };
                let place = TopicPartition::new(&topic, partition);
                let found = waiting.iter_mut().find(|waiting| waiting.place == place);
                found.into_iter().for_each(|waiting| {
                    waiting.records = sample.records(*first, *end);
                    waiting.first = sample.first_offset;
                    waiting.oldest_ms = sample.oldest_ms;
                });
                if sample.whole && sample.records == 0 {
                    empty.insert(place, (*first, *end));
                }
            }
        }
        Ok(waiting)
    }

    fn committed(&self, places: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, (i64, String)>, Error> {
        if let Some(in_process) = &self.settings.in_process {
            let known = |place: &TopicPartition| Some((place.clone(), in_process.committed(&self.group, place)?));
            return Ok(places.iter().filter_map(known).collect());
        }
        let mut list = TopicPartitionList::with_capacity(places.len());
        for place in places {
            list.add_partition(&place.topic, place.partition);
        }
        let mut found = BTreeMap::new();
        let committed = self.positions.look(|positions| Ok(positions.committed_offsets(list, REQUEST_TIMEOUT)?))?;
        for element in committed.elements() {
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                let place = TopicPartition::new(element.topic(), element.partition());
                found.insert(place, (offset, element.metadata().to_owned()));
            }
        }
        Ok(found)
    }
}

fn places(reader: &BaseConsumer<Connection>, start: &str) -> Result<Vec<TopicPartition>, Error> {
    let metadata = metadata(reader, None, REQUEST_TIMEOUT)?;
    let topics = metadata.topics().iter();
    let topics = topics.filter(|topic| topic.name().starts_with(start) && topic.error().is_none());
    let places = topics
        .flat_map(|topic| topic.partitions().iter().map(|partition| TopicPartition::new(topic.name(), partition.id())));
    Ok(places.collect())
}

/// Reads the first records of these partitions: number, first offset, end.
fn samples(
    reader: &BaseConsumer<Connection>,
    topic: &str,
    due: &[(i32, i64, i64)],
) -> Result<BTreeMap<i32, Sample>, Error> {
    let mut list = TopicPartitionList::with_capacity(due.len());
    for (partition, first, _) in due {
        list.add_partition_offset(topic, *partition, Offset::Offset(*first))?;
    }
    reader.assign(&list)?;
    let mut samples: BTreeMap<i32, Sample> =
        due.iter().map(|(partition, ..)| (*partition, Sample::default())).collect();
    let deadline = Instant::now() + SAMPLE_TIMEOUT;
    while samples.values().any(|sample| !sample.is_done()) {
        if Instant::now() > deadline {
            return Err(Error::unavailable(format!("{topic} could not be read within {SAMPLE_TIMEOUT:?}")));
        }
        match reader.poll(POLL_INTERVAL) {
            None => {}
            Some(Ok(record)) if record.topic() == topic => {
                let Some(sample) = samples.get_mut(&record.partition()) else { continue };
                if !sample.is_done() {
                    sample.records += 1;
                    sample.bytes += record.payload_len() + record.key_len();
                    sample.last_offset = record.offset();
                    sample.first_offset = sample.first_offset.or(Some(record.offset()));
                    sample.oldest_ms = sample.oldest_ms.or(record.timestamp().to_millis());
                }
            }
            Some(Ok(_)) => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if let Some(sample) = samples.get_mut(&partition).filter(|sample| !sample.is_done()) {
                    sample.whole = true;
                }
            }
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_exact_where_all_was_read_and_else_goes_by_how_dense_the_records_lie() {
        let whole = Sample { records: 3, last_offset: 14, whole: true, ..Sample::default() };
        assert_eq!(whole.records(10, 17), 3, "a marker each, and one more");
        let half = Sample { records: 500, last_offset: 999, ..Sample::default() };
        assert_eq!(half.records(0, 100_000), 50_000);
        let beyond = Sample { records: 500, last_offset: 999, ..Sample::default() };
        assert_eq!(beyond.records(0, 700), 500, "more came while it was read");
        assert_eq!(Sample { whole: true, ..Sample::default() }.records(5, 6), 0);
    }
}
