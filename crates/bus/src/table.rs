//! A compacted topic as a table: loaded to its present end, then followed; without a group.
//!
//! The end of a partition is what the broker says (partition EOF), not a watermark: transaction markers take offsets
//! too, and the last record may stand before several of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::batch::{BATCHES_MAX, Batch};
use crate::consumer::{
    AssignedPartition, Command, Commands, ConsumerError, ConsumerOptions, GroupConsumer, Handler, Scope, Start,
    TopicPartition,
};
use crate::error::chain;
use crate::{Error, Inbound, Settings, admin};

/// Reads tables.
#[derive(Debug)]
pub struct Table;

impl Table {
    /// Everything that the topic holds now, in order per partition (older values of a key may still be there), and
    /// what follows. Waits for Kafka and for the topic as long as it takes.
    pub async fn load(settings: &Settings, topic: &str) -> Result<(Vec<Inbound>, TableTail), Error> {
        let partitions = admin::ends_when_there(settings, topic).await?.len();
        Self::read(settings, topic, vec![Start::Beginning; partitions]).await
    }

    /// [`Table::load`] from at most `offsets_back` before the end of each partition (transaction markers take offsets
    /// too): finds the newest value of a key without reading a log that is not yet compacted.
    pub async fn load_recent(
        settings: &Settings,
        topic: &str,
        offsets_back: i64,
    ) -> Result<(Vec<Inbound>, TableTail), Error> {
        let mut records = Vec::new();
        let (_, tail) = Self::stream_recent(settings, topic, offsets_back, |more| records.extend(more)).await?;
        Ok((records, tail))
    }

    /// [`Table::load_recent`], batch by batch as they come: a log of large records is never in memory as a whole. The
    /// offset at which each partition was begun is returned, too.
    pub async fn stream_recent(
        settings: &Settings,
        topic: &str,
        offsets_back: i64,
        each: impl FnMut(Vec<Inbound>),
    ) -> Result<(Vec<i64>, TableTail), Error> {
        admin::ends_when_there(settings, topic).await?;
        let offsets = admin::Admin::new(settings)?.offsets(&[topic.to_owned()]).await?;
        let start = |(log_start, end): &(i64, i64)| (end - offsets_back).max(*log_start);
        let starts: Vec<i64> = offsets.values().map(start).collect();
        let mut tail = Self::open(settings, topic, starts.iter().copied().map(Start::Offset).collect())?;
        tail.until_ends(0, each).await?;
        Ok((starts, tail))
    }

    async fn read(settings: &Settings, topic: &str, starts: Vec<Start>) -> Result<(Vec<Inbound>, TableTail), Error> {
        let mut records = Vec::new();
        let mut tail = Self::open(settings, topic, starts)?;
        tail.until_ends(0, |more| records.extend(more)).await?;
        Ok((records, tail))
    }

    fn open(settings: &Settings, topic: &str, starts: Vec<Start>) -> Result<TableTail, Error> {
        let partitions = starts.len();
        let options = ConsumerOptions::new(format!("{}-table", settings.client_id), [topic]);
        let (sender, messages) = mpsc::channel(BATCHES_MAX);
        let asked = Arc::new(AtomicU64::new(0));
        let handler = TableHandler {
            sender: Some(sender),
            batch: Batch::default(),
            starts,
            asked: Arc::clone(&asked),
            answered: 0,
        };
        let consumer = GroupConsumer::start_whole(settings, options, Scope::WholeWithEnds, handler)?;
        let (settings, topic) = (settings.clone(), topic.to_owned());
        Ok(TableTail { settings, topic, messages, asked, partitions, consumer })
    }
}

/// The records that come after a loaded table. Dropping it ends it.
#[derive(Debug)]
pub struct TableTail {
    settings: Settings,
    topic: String,
    messages: mpsc::Receiver<Message>,
    asked: Arc<AtomicU64>,
    partitions: usize,
    consumer: GroupConsumer,
}

impl TableTail {
    /// The next records. None when the tail has ended, after a fatal error: load the table again. Cancel-safe.
    pub async fn next(&mut self) -> Option<Vec<Inbound>> {
        loop {
            if let Message::Records(records) = self.messages.recv().await? {
                return Some(records);
            }
        }
    }

    /// Everything not yet returned that was written when this was called, also in transactions that were open then:
    /// waits for their ends, and for Kafka, as long as it takes.
    pub async fn read_to_end_now(&mut self) -> Result<Vec<Inbound>, Error> {
        admin::until_decided(&self.settings, &self.topic).await?;
        let question = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        self.consumer.wake();
        let mut records = Vec::new();
        self.until_ends(question, |more| records.extend(more)).await?;
        Ok(records)
    }

    /// The topic that it reads.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// True if Kafka could not be reached when it was last tried.
    pub fn is_down(&self) -> bool {
        self.consumer.control().is_down()
    }

    async fn until_ends(&mut self, question: u64, mut each: impl FnMut(Vec<Inbound>)) -> Result<(), Error> {
        let mut ended = BTreeSet::new();
        while ended.len() < self.partitions {
            match self.messages.recv().await {
                Some(Message::Records(records)) => each(records),
                Some(Message::End { partition, answered }) if answered >= question => {
                    ended.insert(partition);
                }
                Some(Message::End { .. }) => {}
                Some(Message::NoRight(error)) => return Err(Error::refused(error)),
                None => return Err(Error::refused(format!("the reader of table {} has ended", self.topic))),
            }
        }
        Ok(())
    }
}

/// A part of a topic: from given offsets to the ends at the time of its begin. Dropping it ends it.
#[derive(Debug)]
pub struct Past {
    tail: TableTail,
    ended: BTreeSet<i32>,
}

impl Past {
    /// Begins at these offsets, by partition; none where one of them is not in the log any more. A partition that is
    /// not named is read from its beginning. Waits for Kafka as long as it takes.
    ///
    /// # Errors
    /// Kafka refuses.
    pub async fn open(settings: &Settings, topic: &str, starts: Vec<i64>) -> Result<Option<Self>, Error> {
        let offsets = admin::Admin::new(settings)?.offsets(&[topic.to_owned()]).await?;
        let mut begins = offsets.values();
        let mut known = Vec::with_capacity(offsets.len());
        for (place, (begin, end)) in begins.by_ref().enumerate() {
            match starts.get(place) {
                Some(start) if start < begin => return Ok(None),
                Some(start) => known.push(Start::Offset((*start).min(*end))),
                None => known.push(Start::Beginning),
            }
        }
        Ok(Some(Self { tail: Table::open(settings, topic, known)?, ended: BTreeSet::new() }))
    }

    /// The next records, in order per partition; none at the end. Cancel-safe.
    ///
    /// # Errors
    /// The reader has ended: the log was trimmed past it.
    pub async fn next(&mut self) -> Result<Option<Vec<Inbound>>, Error> {
        while self.ended.len() < self.tail.partitions {
            match self.tail.messages.recv().await {
                Some(Message::Records(records)) => return Ok(Some(records)),
                Some(Message::End { partition, .. }) => drop(self.ended.insert(partition)),
                Some(Message::NoRight(error)) => return Err(Error::refused(error)),
                None => return Err(Error::refused(format!("the reader of {} has ended", self.tail.topic))),
            }
        }
        Ok(None)
    }
}

#[derive(Debug)]
enum Message {
    Records(Vec<Inbound>),
    End {
        partition: i32,
        answered: u64,
    },
    /// Nothing more will come.
    NoRight(String),
}

struct TableHandler {
    /// None after a fatal error: the reader then sees the end.
    sender: Option<mpsc::Sender<Message>>,
    batch: Batch,
    /// The starts by partition. A partition that was added later is read from its beginning.
    starts: Vec<Start>,
    /// The number of the last request for the ends, and of the last that was passed on.
    asked: Arc<AtomicU64>,
    answered: u64,
}

impl TableHandler {
    fn send(&mut self, message: Message) {
        if let Some(sender) = &self.sender {
            // Blocks while the reader is behind. An error means that the reader was dropped; we end soon, too.
            let _ = sender.blocking_send(message);
        }
    }

    fn hand_over(&mut self) {
        if let Some(records) = self.batch.take() {
            self.send(Message::Records(records));
        }
    }
}

impl Handler for TableHandler {
    fn assigned(&mut self, partitions: &[AssignedPartition]) -> anyhow::Result<Vec<Start>> {
        let start = |partition: &AssignedPartition| {
            let known = usize::try_from(partition.partition).ok().and_then(|index| self.starts.get(index));
            known.copied().unwrap_or(Start::Beginning)
        };
        Ok(partitions.iter().map(start).collect())
    }

    fn revoked(&mut self, _partitions: &[TopicPartition], _lost: bool) {}

    fn record(&mut self, record: Inbound, _commands: &mut Commands) {
        if self.batch.push(record) {
            self.hand_over();
        }
    }

    fn tick(&mut self, commands: &mut Commands) {
        self.hand_over();
        let asked = self.asked.load(Ordering::Relaxed);
        if asked > self.answered {
            self.answered = asked;
            commands.queue.push(Command::AskForEnds);
        }
    }

    fn end(&mut self, partition: TopicPartition) {
        self.hand_over();
        self.send(Message::End { partition: partition.partition, answered: self.answered });
    }

    fn error(&mut self, error: ConsumerError) {
        if matches!(error, ConsumerError::NoRight(_)) {
            self.send(Message::NoRight(chain(&error)));
            self.sender = None;
        } else if error.is_fatal() || matches!(error, ConsumerError::Unreadable { .. }) {
            tracing::error!(error = chain(&error), "the reader of a table has ended");
            self.sender = None;
        } else if !matches!(error, ConsumerError::Unavailable(_)) {
            tracing::warn!(error = chain(&error), "table");
        }
    }
}
