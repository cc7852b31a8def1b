//! The calls from a consumer to its owner, and the commands that the owner may give it.

pub use events::place::TopicPartition;

use crate::Inbound;
use crate::error::Cause;

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
    /// The partition, without its commit.
    pub fn place(&self) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), self.partition)
    }
}

/// The place from which to read a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At this offset.
    Offset(i64),
    /// At the first record that the log still has.
    Beginning,
    /// After the last record at the time of the request.
    End,
    /// Nowhere: the partition is ours, and is not read under this assignment.
    Unread,
}

/// An error of a consumer.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The next offset is not in the log: it was trimmed, or the log was cut. This partition is read no more as long as
    /// it is ours; the others are. Reported once per assignment.
    #[error("{topic}[{partition}]: offset {offset} is not in the log, which has {log_start} to {log_end}")]
    OffsetOutOfRange {
        topic: String,
        partition: i32,
        /// The offset at which reading should continue.
        offset: i64,
        /// The first offset that the log still has.
        log_start: i64,
        /// The offset after its last.
        log_end: i64,
    },
    /// A batch cannot be read at all. This partition is read no more until a seek, or as long as it is ours; the others
    /// are. Reported again only after a seek.
    #[error(
        "{topic}[{partition}]: the batch at offset {offset} cannot be read ({reason}); `meanwhile topics skip --topic \
         {topic} --partition {partition} --offset {offset}` passes it over"
    )]
    Unreadable {
        topic: String,
        partition: i32,
        /// The offset at which reading should continue.
        offset: i64,
        /// librdkafka's own text.
        reason: String,
    },
    /// The group has no committed offset. A handler returns it from `assigned`, or reports it beside `Start::Unread`.
    #[error("{topic}[{partition}]: no committed offset; run `meanwhile migrate`, which commits the initial ones")]
    NoOffset { topic: String, partition: i32 },
    /// A subscribed topic does not exist. It is looked for again every few seconds.
    #[error("topic missing: {0}")]
    TopicMissing(String),
    /// No broker can be reached. The client keeps trying.
    #[error("Kafka is not reachable")]
    Unavailable(#[source] Cause),
    /// `Handler::assigned` failed. The consumer leaves the group and ends.
    #[error("the assigned partitions were refused")]
    Refused(#[source] anyhow::Error),
    /// The client is broken. The consumer ends.
    #[error("the consumer is broken")]
    Fatal(#[source] Cause),
    /// A right is missing that reading needs. It goes on once it is granted.
    #[error("a right at Kafka is missing")]
    NoRight(#[source] Cause),
    /// Anything else; the client recovers by itself.
    #[error(transparent)]
    Other(Cause),
}

impl ConsumerError {
    /// True if reading has stopped, wholly or in part, until an operator acts.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::OffsetOutOfRange { .. } | Self::NoOffset { .. } | Self::Refused(_) | Self::Fatal(_))
    }
}

/// Commands of a handler to its consumer; executed right after the call that gave them.
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
    /// Seek to the present offset, so that the end is reported again.
    AskForEnds,
}

impl Commands {
    /// Stops the delivery of these partitions. Records that were fetched ahead are kept.
    pub fn pause(&mut self, partitions: Vec<TopicPartition>) {
        self.queue.push(Command::Pause(partitions));
    }

    /// Resumes these partitions, from the record after the last delivered one.
    pub fn resume(&mut self, partitions: Vec<TopicPartition>) {
        self.queue.push(Command::Resume(partitions));
    }

    /// Continues from here. Records that were fetched before are delivered until `Handler::sought`, not after it.
    pub fn seek(&mut self, partition: TopicPartition, start: Start) {
        self.queue.push(Command::Seek(partition, start));
    }

    /// Replaces the subscribed topics by these.
    pub fn subscribe(&mut self, topics: Vec<String>) {
        self.queue.push(Command::Subscribe(topics));
    }
}

/// The owner of a consumer. All calls come from the consumer's thread, one at a time; while one blocks, nothing is
/// polled. `assigned` and `revoked` may block for a while, `record` should not.
pub trait Handler: Send + 'static {
    /// Takes new partitions. Returns the start of each, in order. An error ends the consumer.
    fn assigned(&mut self, partitions: &[AssignedPartition]) -> anyhow::Result<Vec<Start>>;

    /// Gives partitions back; they are ours until this returns. `lost`: they may be another's already, and no offset of
    /// theirs can be committed.
    fn revoked(&mut self, partitions: &[TopicPartition], lost: bool);

    /// Takes the next record of a partition that is ours.
    fn record(&mut self, record: Inbound, commands: &mut Commands);

    /// Called after each burst of records, on `wake`, and at least every `tick_interval`.
    fn tick(&mut self, commands: &mut Commands);

    /// Called at the end of a partition, if the consumer was started to report ends.
    fn end(&mut self, partition: TopicPartition) {
        let _ = partition;
    }

    /// Called when a seek was done: the next record of the partition is from there. Until then they may be from before.
    fn sought(&mut self, partition: &TopicPartition) {
        let _ = partition;
    }

    /// Takes an error. Unavailability is reported once per change.
    fn error(&mut self, error: ConsumerError);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::chain;

    #[test]
    fn an_error_and_its_causes_say_each_thing_once() {
        let cause = || Cause::from("1/1 brokers are down");
        assert_eq!(chain(&ConsumerError::Unavailable(cause())), "Kafka is not reachable: 1/1 brokers are down");
        assert_eq!(chain(&ConsumerError::Fatal(cause())), "the consumer is broken: 1/1 brokers are down");
        assert_eq!(chain(&ConsumerError::Other(cause())), "1/1 brokers are down");
        let refused = anyhow::anyhow!("no table").context("positions");
        assert_eq!(
            chain(&ConsumerError::Refused(refused)),
            "the assigned partitions were refused: positions: no table"
        );
    }
}
