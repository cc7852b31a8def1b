//! The calls from a consumer to its owner, and the commands that the owner may give it.

pub use events::place::TopicPartition;

use crate::Inbound;

/// A partition that has become ours, with what the group has committed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedPartition {
    /// The topic's full name.
    pub topic: String,
    pub partition: i32,
    /// The group's committed offset; none when it has none.
    pub committed: Option<i64>,
    /// The metadata of that commit; empty when there is none.
    pub metadata: String,
}

impl AssignedPartition {
    /// Which one.
    pub fn place(&self) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), self.partition)
    }
}

/// Where to start reading a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At this offset.
    Offset(i64),
    /// At the first record that the log still has.
    Beginning,
    /// After the last record as of when the broker is asked.
    End,
}

/// An error of a consumer.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The next offset is not in the log: it was trimmed, or the log was cut. Reading of this partition has stopped.
    #[error("{topic}[{partition}]: offset {offset} is not in the log, which has {log_start} to {log_end}")]
    OffsetOutOfRange {
        topic: String,
        partition: i32,
        /// Where reading was to go on.
        offset: i64,
        /// The first offset that the log still has.
        log_start: i64,
        /// The offset after its last.
        log_end: i64,
    },
    /// The group has no committed offset: for handlers to return from `assigned`.
    #[error("{topic}[{partition}]: no committed offset; run `meanwhile migrate`, which commits the initial ones")]
    NoOffset { topic: String, partition: i32 },
    /// A subscribed topic does not exist. It is looked for again every few seconds.
    #[error("topic missing: {0}")]
    TopicMissing(String),
    /// No broker can be reached. The client keeps trying.
    #[error("Kafka is not reachable: {0}")]
    Unavailable(String),
    /// `Handler::assigned` failed. The consumer leaves the group and ends.
    #[error("the assigned partitions were refused")]
    Refused(#[source] anyhow::Error),
    /// The client is broken. The consumer ends.
    #[error("the consumer is broken: {0}")]
    Fatal(String),
    /// Anything else; the client recovers by itself.
    #[error("{0}")]
    Other(String),
}

impl ConsumerError {
    /// Whether reading has stopped, wholly or in part, until an operator acts.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::OffsetOutOfRange { .. } | Self::NoOffset { .. } | Self::Refused(_) | Self::Fatal(_))
    }
}

/// Commands of a handler to its consumer; obeyed right after the call that gave them.
#[derive(Debug, Default)]
pub struct Commands {
    pub(crate) queue: Vec<Command>,
}

#[derive(Debug)]
pub(crate) enum Command {
    Pause(Vec<TopicPartition>),
    Resume(Vec<TopicPartition>),
    Seek(TopicPartition, Start),
    Subscribe(Vec<String>),
    /// Read on from where we are, so that the end is reported again.
    AskForEnds,
}

impl Commands {
    /// Deliver nothing of these for now. What was fetched ahead is kept.
    pub fn pause(&mut self, partitions: Vec<TopicPartition>) {
        self.queue.push(Command::Pause(partitions));
    }

    /// Deliver these again, from the record after the last delivered one.
    pub fn resume(&mut self, partitions: Vec<TopicPartition>) {
        self.queue.push(Command::Resume(partitions));
    }

    /// Go on from here. Nothing that was fetched before is delivered after.
    pub fn seek(&mut self, partition: TopicPartition, start: Start) {
        self.queue.push(Command::Seek(partition, start));
    }

    /// From now on these topics, all of them, and no others.
    pub fn subscribe(&mut self, topics: Vec<String>) {
        self.queue.push(Command::Subscribe(topics));
    }
}

/// The owner of a consumer. All calls come from the consumer's thread, one at a time; while one blocks, nothing is
/// polled. `assigned` and `revoked` may block for a while, `record` should not.
pub trait Handler: Send + 'static {
    /// These are ours from now on: where to start, one answer per partition, in order. An error ends the consumer.
    fn assigned(&mut self, partitions: &[AssignedPartition]) -> anyhow::Result<Vec<Start>>;

    /// These are ours no more once this returns. `lost`: they may be another's already, nothing can be committed.
    fn revoked(&mut self, partitions: &[TopicPartition], lost: bool);

    /// The next record of a partition that is ours.
    fn record(&mut self, record: Inbound, commands: &mut Commands);

    /// After each burst of records, on `wake`, and at least every `tick_interval`.
    fn tick(&mut self, commands: &mut Commands);

    /// The end of a partition was reached; only where `ConsumerOptions` asked for it.
    fn end(&mut self, partition: TopicPartition) {
        let _ = partition;
    }

    /// Something went wrong. Unavailability is reported once per change.
    fn error(&mut self, error: ConsumerError);
}
