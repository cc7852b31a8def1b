//! Rule 3: follow topics with the positions kept in the caller's database.
//!
//! The group only divides the partitions; nothing is committed to Kafka. A part's `first_offset` is what the database
//! must hold for the part to be applied (compare-and-set), `next_offset` is its value afterwards. On a conflict call
//! `rewind`. If the positions cannot be read, reading them is retried; they are never guessed.

mod buffer;
mod pass_over;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use self::buffer::{Buffer, Rewinding, Shared};
use crate::consumer::{
    AssignedPartition, Commands, ConsumerError, ConsumerOptions, Control, GroupConsumer, Handler, Start, TopicPartition,
};
use crate::error::chain;
use crate::{Error, Inbound, Settings};

/// See [`FollowerOptions::in_large_batches`].
const LARGE_FETCH_BYTES_MIN: u32 = 256 * 1024;
const LARGE_FETCH_WAIT_MAX: Duration = Duration::from_millis(50);
/// The time for which a full buffer holds the thread before the partitions are paused.
const FULL_WAIT: Duration = Duration::from_millis(500);
/// The pause between attempts to read the positions.
const POSITIONS_RETRY: Duration = Duration::from_millis(500);
/// The time limit of one attempt to read the positions.
const POSITIONS_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval at which a waiting caller checks that the consumer still runs.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(1);

/// The topics to follow, and the size of batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerOptions {
    /// The consumer group, which divides the partitions.
    pub group: String,
    /// The topics, by full name.
    pub topics: Vec<String>,
    /// Records in a batch, at most; the same again may wait behind it.
    pub batch_records_max: usize,
    /// Bytes in a batch, about; the same again may wait behind it.
    pub batch_bytes_max: usize,
    /// See `ConsumerOptions::fetch_wait_max`.
    pub fetch_wait_max: Duration,
    /// See `ConsumerOptions::fetch_min_bytes`.
    pub fetch_min_bytes: u32,
    /// See `ConsumerOptions::session_timeout`.
    pub session_timeout: Duration,
}

impl FollowerOptions {
    /// 1,000 records or 4 MiB at once.
    pub fn new(group: impl Into<String>, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let consumer = ConsumerOptions::new(group, topics);
        Self {
            group: consumer.group,
            topics: consumer.topics,
            batch_records_max: 1000,
            batch_bytes_max: 4 * 1024 * 1024,
            fetch_wait_max: consumer.fetch_wait_max,
            fetch_min_bytes: consumer.fetch_min_bytes,
            session_timeout: consumer.session_timeout,
        }
    }

    /// For services that no caller waits for: fetches when there is much, or after a while. One fetch per producer's
    /// transaction would cost the broker more than the records do.
    #[must_use]
    pub fn in_large_batches(self) -> Self {
        Self { fetch_min_bytes: LARGE_FETCH_BYTES_MIN, fetch_wait_max: LARGE_FETCH_WAIT_MAX, ..self }
    }
}

/// Records of several partitions: at most one part per partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordBatch {
    /// The parts, in no particular order.
    pub parts: Vec<PartitionRecords>,
}

impl RecordBatch {
    /// Records in all parts.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.records.len()).sum()
    }

    /// True if there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Consecutive records of one partition; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRecords {
    /// The topic's full name.
    pub topic: String,
    pub partition: i32,
    /// The position that the database must hold before this part is applied; 0 where it held none.
    pub first_offset: i64,
    /// The position after it: one past the last record.
    pub next_offset: i64,
    /// In offset order.
    pub records: Vec<Inbound>,
}

/// Follows topics; see the module. Dropping it stops it.
pub struct Follower {
    shared: Arc<Shared>,
    consumer: GroupConsumer,
    batch_records_max: usize,
    batch_bytes_max: usize,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

impl Follower {
    /// Joins the group. `positions` answers one stored position per partition, in order; none means: from the
    /// beginning. It is called on the consumer's thread, again and again until it succeeds. Call within a runtime.
    pub fn start<F, Fut>(settings: &Settings, options: FollowerOptions, positions: F) -> Result<Self, Error>
    where
        F: Fn(Vec<TopicPartition>) -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<Vec<Option<i64>>>> + 'static,
    {
        let shared = Arc::new(Shared::new(options.batch_records_max, options.batch_bytes_max));
        let mut consumer_options = ConsumerOptions::new(options.group, options.topics);
        consumer_options.fetch_wait_max = options.fetch_wait_max;
        consumer_options.fetch_min_bytes = options.fetch_min_bytes;
        consumer_options.session_timeout = options.session_timeout;
        let runtime = Handle::current();
        let handler_shared = Arc::clone(&shared);
        let consumer = GroupConsumer::start_with(settings, consumer_options, |control| FollowerHandler {
            shared: handler_shared,
            control,
            runtime,
            positions: Box::new(move |places| Box::pin(positions(places))),
            paused: false,
            positions_failed: false,
            tried_at: None,
            looked_at: Instant::now(),
        })?;
        let (batch_records_max, batch_bytes_max) = (options.batch_records_max, options.batch_bytes_max);
        Ok(Self { shared, consumer, batch_records_max, batch_bytes_max })
    }

    /// Everything that queued up, up to the limits; waits for at least one record. An error is fatal: an offset that
    /// is not in the log, or a broken client. Cancel-safe.
    pub async fn next_batch(&mut self) -> Result<RecordBatch, ConsumerError> {
        loop {
            let notified = self.shared.filled.notified();
            if let Some(error) = self.shared.lock().failure.take() {
                return Err(error);
            }
            let batch = self.shared.take(self.batch_records_max, self.batch_bytes_max);
            if !batch.parts.is_empty() {
                return Ok(batch);
            }
            if self.consumer.is_finished() {
                return Err(ConsumerError::Fatal("the consumer has ended".into()));
            }
            let _ = tokio::time::timeout(LIVENESS_INTERVAL, notified).await;
        }
    }

    /// Reads the stored position of a partition again, and goes on from there: after a compare-and-set conflict. What
    /// queued up for it is dropped. Nothing happens when it is no longer ours.
    pub fn rewind(&self, topic: &str, partition: i32) {
        let place = TopicPartition::new(topic, partition);
        let mut state = self.shared.lock();
        if let Some(buffer) = state.partitions.get_mut(&place) {
            let (records, bytes) = buffer.clear();
            buffer.rewinding = Some(Rewinding::Due);
            state.count_out(records, bytes);
            self.shared.room.notify_all();
            self.consumer.wake();
        }
    }

    /// The partitions that are ours now.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.lock().partitions.keys().cloned().collect()
    }

    /// The partitions whose next batch cannot be read, each with the reason and the remedy. They are read on once their
    /// stored positions are behind it.
    pub fn unreadable(&self) -> Vec<String> {
        self.shared.lock().unreadable.values().map(|(_, reason)| reason.clone()).collect()
    }

    /// The reason, while Kafka could not be reached when it was last tried.
    pub fn why_down(&self) -> Option<String> {
        self.consumer.control().why_down()
    }

    /// Gives the partitions back and leaves the group.
    pub async fn stop(self, timeout: Duration) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.room.notify_all();
        let stopped = tokio::task::spawn_blocking(move || self.consumer.stop(timeout)).await;
        if !matches!(stopped, Ok(true)) {
            tracing::warn!("a follower did not leave its group in time");
        }
    }
}

type Positions = dyn Fn(Vec<TopicPartition>) -> Pin<Box<dyn Future<Output = anyhow::Result<Vec<Option<i64>>>>>> + Send;

/// The handler on the consumer's thread.
struct FollowerHandler {
    shared: Arc<Shared>,
    control: Control,
    runtime: Handle,
    positions: Box<Positions>,
    paused: bool,
    positions_failed: bool,
    tried_at: Option<Instant>,
    /// When the positions of partitions were read last whose next batch cannot be read.
    looked_at: Instant,
}

impl FollowerHandler {
    fn ask(&mut self, places: &[TopicPartition]) -> anyhow::Result<Vec<Option<i64>>> {
        self.tried_at = Some(Instant::now());
        let answer = (self.positions)(places.to_vec());
        let answer = self.runtime.block_on(async { tokio::time::timeout(POSITIONS_TIMEOUT, answer).await });
        let result = match answer {
            Ok(Ok(found)) if found.len() == places.len() => Ok(found),
            Ok(Ok(found)) => Err(anyhow::anyhow!("{} positions for {} partitions", found.len(), places.len())),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(anyhow::anyhow!("no answer within {} s", POSITIONS_TIMEOUT.as_secs())),
        };
        match &result {
            Ok(_) => {
                if std::mem::replace(&mut self.positions_failed, false) {
                    tracing::info!("stored positions can be read again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.positions_failed, true) {
                    tracing::warn!(error = format!("{error:#}"), "stored positions cannot be read; retrying");
                }
            }
        }
        result
    }

    fn stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Relaxed) || self.control.is_stopping()
    }

    /// Reads positions again for what has to be rewound. Until that succeeds their records are dropped.
    fn rewind(&mut self, commands: &mut Commands) {
        let due: Vec<TopicPartition> = {
            let state = self.shared.lock();
            state
                .partitions
                .iter()
                .filter(|(_, buffer)| buffer.rewinding == Some(Rewinding::Due))
                .map(|(place, _)| place.clone())
                .collect()
        };
        if due.is_empty() || (self.positions_failed && self.tried_at.is_some_and(|at| at.elapsed() < POSITIONS_RETRY)) {
            return;
        }
        let Ok(found) = self.ask(&due) else { return };
        let mut state = self.shared.lock();
        for (place, position) in due.into_iter().zip(found) {
            if let Some(buffer) = state.partitions.get_mut(&place) {
                buffer.rewinding = Some(Rewinding::Seeking(position.unwrap_or(0)));
                commands.seek(place, start_of(position));
            }
        }
    }
}

fn start_of(position: Option<i64>) -> Start {
    position.map_or(Start::Beginning, Start::Offset)
}

impl Handler for FollowerHandler {
    fn assigned(&mut self, partitions: &[AssignedPartition]) -> anyhow::Result<Vec<Start>> {
        let places: Vec<TopicPartition> = partitions.iter().map(AssignedPartition::place).collect();
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let found = loop {
            match self.ask(&places) {
                Ok(found) => break found,
                Err(error) if self.stopping() => return Err(error.context("stopped before the positions were read")),
                Err(_) => std::thread::sleep(POSITIONS_RETRY),
            }
        };
        let mut state = self.shared.lock();
        for (place, position) in places.into_iter().zip(&found) {
            state.partitions.insert(place, Buffer::at(position.unwrap_or(0)));
        }
        Ok(found.into_iter().map(start_of).collect())
    }

    fn revoked(&mut self, partitions: &[TopicPartition], _lost: bool) {
        let mut state = self.shared.lock();
        for place in partitions {
            state.unreadable.remove(place);
            if let Some(mut buffer) = state.partitions.remove(place) {
                let (records, bytes) = buffer.clear();
                state.count_out(records, bytes);
            }
        }
    }

    fn record(&mut self, record: Inbound, commands: &mut Commands) {
        let mut state = self.shared.lock();
        let deadline = Instant::now() + FULL_WAIT;
        while self.shared.is_full(&state) && !self.paused && !self.stopping() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                // The caller is stuck (a database that is down): stop fetching, and keep polling.
                self.paused = true;
                commands.pause(state.partitions.keys().cloned().collect());
                break;
            };
            self.shared.room.wait_for(&mut state, left);
        }
        let bytes = record.size_bytes();
        let place = TopicPartition::new(record.topic.as_str(), record.partition);
        if self.paused && self.shared.is_full(&state) {
            // It was assigned while the others were paused.
            commands.pause(vec![place.clone()]);
        }
        let Some(buffer) = state.partitions.get_mut(&place).filter(|buffer| buffer.takes(record.offset)) else {
            return;
        };
        buffer.expected = record.offset + 1;
        buffer.records.push(record);
        buffer.bytes += bytes;
        state.records += 1;
        state.bytes += bytes;
        drop(state);
        self.shared.filled.notify_one();
    }

    fn tick(&mut self, commands: &mut Commands) {
        self.rewind(commands);
        self.pass_over(commands);
        if self.paused {
            let state = self.shared.lock();
            if state.records * 2 <= self.shared.records_max && state.bytes * 2 <= self.shared.bytes_max {
                self.paused = false;
                commands.resume(state.partitions.keys().cloned().collect());
            }
        }
    }

    fn sought(&mut self, partition: &TopicPartition) {
        if let Some(buffer) = self.shared.lock().partitions.get_mut(partition)
            && let Some(Rewinding::Seeking(position)) = buffer.rewinding
        {
            *buffer = Buffer::at(position);
        }
    }

    fn error(&mut self, error: ConsumerError) {
        if let ConsumerError::Unreadable { topic, partition, offset, .. } = &error {
            let place = TopicPartition::new(topic, *partition);
            tracing::error!(error = chain(&error), "following, but for a batch that cannot be read");
            self.shared.lock().unreadable.insert(place, (*offset, error.to_string()));
        } else if error.is_fatal() {
            if self.stopping() {
                return;
            }
            tracing::error!(error = chain(&error), "following has stopped");
            self.shared.lock().failure.get_or_insert(error);
            self.shared.filled.notify_one();
        } else if !matches!(error, ConsumerError::Unavailable(_)) {
            tracing::warn!(error = chain(&error), "following");
        }
    }
}
