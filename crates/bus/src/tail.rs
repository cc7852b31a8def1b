//! A tail: every partition of one topic, from its present end, `read_committed`, without a group.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::batch::{BATCHES_MAX, Batch};
use crate::consumer::{
    AssignedPartition, Commands, ConsumerError, ConsumerOptions, GroupConsumer, Handler, Scope, Start, TopicPartition,
};
use crate::error::chain;
use crate::{Error, Inbound, Settings, admin};

/// Follows a topic from its end as of `start`. Dropping it ends it.
#[derive(Debug)]
pub struct Tail {
    batches: mpsc::Receiver<Vec<Inbound>>,
    consumer: GroupConsumer,
}

impl Tail {
    /// Returns once the ends are known: every record that becomes visible afterwards will be delivered. Waits for
    /// Kafka and for the topic as long as it takes.
    pub async fn start(settings: &Settings, topic: &str, fetch_wait_max: Duration) -> Result<Self, Error> {
        let ends = admin::ends_when_there(settings, topic).await?;
        let mut options = ConsumerOptions::new(format!("{}-tail", settings.client_id), [topic]);
        options.fetch_wait_max = fetch_wait_max;
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let handler = TailHandler { sender: Some(sender), batch: Batch::default(), ends };
        let consumer = GroupConsumer::start_whole(settings, options, Scope::Whole, handler)?;
        Ok(Self { batches, consumer })
    }

    /// The next records, in order per partition. None when the tail has ended, after a fatal error (the log was
    /// trimmed past us): start another. Cancel-safe.
    pub async fn next(&mut self) -> Option<Vec<Inbound>> {
        self.batches.recv().await
    }

    /// True if Kafka could not be reached when it was last tried.
    pub fn is_down(&self) -> bool {
        self.consumer.control().is_down()
    }
}

struct TailHandler {
    /// None after a fatal error: the reader then sees the end.
    sender: Option<mpsc::Sender<Vec<Inbound>>>,
    batch: Batch,
    /// The ends at the start, by partition. A partition that was added later is read from its beginning.
    ends: Vec<i64>,
}

impl TailHandler {
    fn hand_over(&mut self) {
        if let (Some(records), Some(sender)) = (self.batch.take(), &self.sender) {
            // Blocks while the reader is behind. An error means that the reader was dropped; we end soon, too.
            let _ = sender.blocking_send(records);
        }
    }
}

impl Handler for TailHandler {
    fn assigned(&mut self, partitions: &[AssignedPartition]) -> anyhow::Result<Vec<Start>> {
        let start = |partition: &AssignedPartition| {
            let end = usize::try_from(partition.partition).ok().and_then(|index| self.ends.get(index));
            end.map_or(Start::Beginning, |offset| Start::Offset(*offset))
        };
        Ok(partitions.iter().map(start).collect())
    }

    fn revoked(&mut self, _partitions: &[TopicPartition], _lost: bool) {}

    fn record(&mut self, record: Inbound, _commands: &mut Commands) {
        if self.batch.push(record) {
            self.hand_over();
        }
    }

    fn tick(&mut self, _commands: &mut Commands) {
        self.hand_over();
    }

    fn error(&mut self, error: ConsumerError) {
        if error.is_fatal() || matches!(error, ConsumerError::Unreadable { .. }) {
            tracing::error!(error = chain(&error), "a tail has ended");
            self.sender = None;
        } else if !matches!(error, ConsumerError::Unavailable(_)) {
            tracing::warn!(error = chain(&error), "tail");
        }
    }
}
