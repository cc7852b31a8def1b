//! Offsets: the ends of logs, what groups have committed, how far they lag.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{Admin, LOOK_INTERVAL, REQUEST_TIMEOUT, partitions, patiently};
use crate::connection::Connection;
use crate::consumer::{GroupMetadata, TopicPartition};
use crate::error::chain;
use crate::offset_commit::OffsetCommit;
use crate::transaction::{TransactionalProducer, TxError};
use crate::{Error, Settings};

/// Partitions whose ends are asked for at the same time.
const ASKED_AT_ONCE: usize = 16;
/// The time that one of them may take.
const END_TIMEOUT: Duration = Duration::from_millis(500);
/// The transaction that commits initial offsets.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The partitions in which a group without an offset may begin where the log does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Beginning {
    /// Those that were never read: the log is empty, or the group is at work in others of the topic and this one's
    /// log is whole, or the caller has just created the topic.
    Unread { created: Vec<String> },
    /// All.
    LogStart,
}

impl Admin {
    /// For each partition the log's first offset and the end of what is committed (`read_committed`).
    pub async fn offsets(&self, topics: &[String]) -> Result<BTreeMap<TopicPartition, (i64, i64)>, Error> {
        let topics = topics.to_vec();
        self.with_lookup(move |lookup| watermarks(lookup, &topics)).await
    }

    /// For each partition the end of what is committed.
    pub async fn end_offsets(&self, topics: &[String]) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        Ok(self.offsets(topics).await?.into_iter().map(|(place, (_, end))| (place, end)).collect())
    }

    /// For each partition the first offset whose record's time is this or later; absent where there is none.
    pub async fn offsets_at(&self, topic: &str, at_ms: i64) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let topics = [topic.to_owned()];
        self.with_lookup(move |lookup| {
            let mut asked = TopicPartitionList::new();
            for place in places(lookup, &topics)? {
                asked.add_partition_offset(&place.topic, place.partition, Offset::Offset(at_ms))?;
            }
            offsets_of(&lookup.offsets_for_times(asked, REQUEST_TIMEOUT)?)
        })
        .await
    }

    /// The ends of what is committed in these partitions, as far as their leaders answer in time. They are asked at the
    /// same time, so that one without a leader does not keep the others waiting.
    pub async fn ends_of(&self, places: &[TopicPartition], timeout: Duration) -> BTreeMap<TopicPartition, i64> {
        let deadline = Instant::now() + timeout;
        let asked: Vec<_> = places
            .chunks(places.len().div_ceil(ASKED_AT_ONCE).max(1))
            .map(|places| {
                let (lookup, places) = (Arc::clone(&self.lookup), places.to_vec());
                tokio::task::spawn_blocking(move || lookup.look(|lookup| ends(lookup, &places, deadline)))
            })
            .collect();
        let mut found = BTreeMap::new();
        for ends in asked {
            // A panic of one is as good as no answer.
            found.extend(ends.await.ok().and_then(Result::ok).unwrap_or_default());
        }
        found
    }

    /// The group's committed offsets; partitions without a commit are absent.
    pub async fn committed(&self, group: &str, topics: &[String]) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let (settings, group, topics) = (self.settings.clone(), group.to_owned(), topics.to_vec());
        patiently(move || {
            let places = places(&lookup_for(&settings, &group)?, &topics)?;
            committed(&settings, &group, &places)
        })
        .await
    }

    /// Offsets between the group's commits and the ends. Transaction markers count too, so it need not reach 0; a
    /// partition without a commit counts from the log's first offset.
    pub async fn lag(&self, group: &str, topics: &[String]) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let committed = self.committed(group, topics).await?;
        let lag = |(place, (start, end)): (TopicPartition, (i64, i64))| {
            let done = committed.get(&place).copied().unwrap_or(start);
            (place, (end - done).max(0))
        };
        Ok(self.offsets(topics).await?.into_iter().map(lag).collect())
    }

    /// Commits the log's first offset wherever the group has committed none; how many that were. Also while members of
    /// the group are at work, which the plain commit would refuse: it goes through a transaction without membership
    /// (KIP-447 keeps that door for old clients). [`Error::Refused`]: the group has lost its offsets in a topic that it
    /// has read: Kafka forgets them after `offsets.retention.minutes` without members (KIP-211).
    pub async fn commit_initial_offsets(&self, group: &str, topics: &[String]) -> Result<usize, Error> {
        self.commit_offsets_where_new(group, topics, &[]).await
    }

    /// The same, where the caller has just created some of the topics: nobody has read these, although the relay may
    /// have filled them since.
    pub async fn commit_offsets_where_new(
        &self,
        group: &str,
        topics: &[String],
        created: &[String],
    ) -> Result<usize, Error> {
        self.begin(group, topics, Beginning::Unread { created: created.to_vec() }).await
    }

    /// The same in topics that the group may have read before: an operator's decision, since what their logs hold is
    /// handled again, finished or not.
    pub async fn begin_at_log_start(&self, group: &str, topics: &[String]) -> Result<usize, Error> {
        self.begin(group, topics, Beginning::LogStart).await
    }

    async fn begin(&self, group: &str, topics: &[String], beginning: Beginning) -> Result<usize, Error> {
        let (settings, group, topics) = (self.settings.clone(), group.to_owned(), topics.to_vec());
        patiently(move || commit_initial(&settings, &group, &topics, &beginning)).await
    }
}

pub(super) fn lookup_for(settings: &Settings, group: &str) -> Result<BaseConsumer<Connection>, Error> {
    let config = settings.client_config(&[("group.id", group), ("isolation.level", "read_committed")]);
    Ok(BaseConsumer::from_config_and_context(&config, Connection::new("offsets"))?)
}

fn lookup_of(settings: &Settings, isolation_level: &str) -> Result<BaseConsumer<Connection>, Error> {
    let config = settings.client_config(&[("isolation.level", isolation_level)]);
    Ok(BaseConsumer::from_config_and_context(&config, Connection::new("lookup"))?)
}

fn places(lookup: &BaseConsumer<Connection>, topics: &[String]) -> Result<Vec<TopicPartition>, Error> {
    let mut places = Vec::new();
    for topic in topics {
        let count = partitions(lookup, topic)?.ok_or_else(|| Error::TopicMissing(topic.clone()))?;
        let ids = 0..i32::try_from(count).unwrap_or(i32::MAX);
        places.extend(ids.map(|partition| TopicPartition::new(topic, partition)));
    }
    Ok(places)
}

/// An error: none of them answered.
fn ends(
    lookup: &BaseConsumer<Connection>,
    places: &[TopicPartition],
    deadline: Instant,
) -> Result<Vec<(TopicPartition, i64)>, Error> {
    let mut found = Vec::with_capacity(places.len());
    for place in places {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        if let Ok((_, end)) = lookup.fetch_watermarks(&place.topic, place.partition, left.min(END_TIMEOUT)) {
            found.push((place.clone(), end));
        }
    }
    if found.is_empty() { Err(Error::unavailable("no partition's leader answered")) } else { Ok(found) }
}

fn watermarks(
    lookup: &BaseConsumer<Connection>,
    topics: &[String],
) -> Result<BTreeMap<TopicPartition, (i64, i64)>, Error> {
    let mut marks = BTreeMap::new();
    for place in places(lookup, topics)? {
        let found = lookup.fetch_watermarks(&place.topic, place.partition, REQUEST_TIMEOUT)?;
        marks.insert(place, found);
    }
    Ok(marks)
}

pub(super) fn committed(
    settings: &Settings,
    group: &str,
    places: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, i64>, Error> {
    if let Some(in_process) = &settings.in_process {
        let known = |place: &TopicPartition| Some((place.clone(), in_process.committed(group, place)?.0));
        return Ok(places.iter().filter_map(known).collect());
    }
    let mut list = TopicPartitionList::with_capacity(places.len());
    for place in places {
        list.add_partition(&place.topic, place.partition);
    }
    let lookup = lookup_for(settings, group)?;
    let list = lookup.committed_offsets(list, REQUEST_TIMEOUT)?;
    offsets_of(&list)
}

/// The partitions that have an offset, with it.
fn offsets_of(list: &TopicPartitionList) -> Result<BTreeMap<TopicPartition, i64>, Error> {
    let mut found = BTreeMap::new();
    for element in list.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            found.insert(TopicPartition::new(element.topic(), element.partition()), offset);
        }
    }
    Ok(found)
}

fn commit_initial(settings: &Settings, group: &str, topics: &[String], beginning: &Beginning) -> Result<usize, Error> {
    let lookup = lookup_for(settings, group)?;
    let missing = missing_offsets(settings, group, &lookup, topics, beginning)?;
    if missing.is_empty() {
        return Ok(0);
    }
    if let Some(in_process) = &settings.in_process {
        let count = missing.len();
        in_process.commit(group, missing);
        return Ok(count);
    }
    let metadata = lookup.group_metadata().map(|metadata| GroupMetadata::Kafka(Arc::new(metadata)));
    let metadata = metadata.ok_or_else(|| Error::refused("no group metadata without a group"))?;
    let mut producer = TransactionalProducer::new(settings, &format!("{group}-initial-offsets"), TRANSACTION_TIMEOUT)?;
    producer.init(REQUEST_TIMEOUT).map_err(|error| transaction_error(group, error))?;
    // Another caller may have committed them, and the group may be beyond them by now. From here on such a caller
    // ends this producer before it commits.
    let missing = missing_offsets(settings, group, &lookup, topics, beginning)?;
    if missing.is_empty() {
        return Ok(0);
    }
    let transact = |producer: &mut TransactionalProducer| {
        producer.begin()?;
        producer.send_offsets(&missing, &metadata)?;
        producer.commit()
    };
    transact(&mut producer).map_err(|error| transaction_error(group, error))?;
    Ok(missing.len())
}

/// The first offset of each partition for which the group has none.
fn missing_offsets(
    settings: &Settings,
    group: &str,
    lookup: &BaseConsumer<Connection>,
    topics: &[String],
    beginning: &Beginning,
) -> Result<Vec<OffsetCommit>, Error> {
    let known = committed(settings, group, &places(lookup, topics)?)?;
    let marks = watermarks(lookup, topics)?;
    let missing: Vec<_> = marks.into_iter().filter(|(place, _)| !known.contains_key(place)).collect();
    if let Beginning::Unread { created } = beginning {
        let at_work = |topic: &str| known.keys().any(|place| place.topic == topic);
        let mut old = missing.iter().filter(|(place, _)| !created.contains(&place.topic));
        let lost = old.find(|(place, (start, end))| *start > 0 || (*end > 0 && !at_work(&place.topic)));
        if let Some((place, (start, end))) = lost {
            return Err(lost_offsets(group, place, *start, *end));
        }
    }
    let commit = |(place, (start, _)): (TopicPartition, (i64, i64))| OffsetCommit {
        topic: place.topic,
        partition: place.partition,
        next_offset: start,
        metadata: None,
    };
    Ok(missing.into_iter().map(commit).collect())
}

fn lost_offsets(group: &str, TopicPartition { topic, partition }: &TopicPartition, start: i64, end: i64) -> Error {
    Error::refused(format!(
        "the group {group} has no offset for {topic}[{partition}], whose log holds the offsets {start} to {end}: Kafka \
         forgets a group's offsets when it has had no member for offsets.retention.minutes. Nothing was changed. \
         `meanwhile migrate --offsets-from-log-start` begins where the log does; slips that had finished out of order \
         run again then"
    ))
}

pub(super) fn transaction_error(group: &str, error: TxError) -> Error {
    match error {
        TxError::Retriable(cause) => Error::unavailable(cause),
        // Another caller does the same: it, or the next attempt, finds them committed.
        TxError::Fenced => Error::unavailable("another process commits offsets of this group"),
        error => Error::refused(format!("offsets of {group}: {}", chain(&error))),
    }
}

/// Waits until every transaction that has written to the topic by now has ended, and so is visible or void. Kafka ends
/// those whose producers are gone after their time-outs.
pub(crate) async fn until_decided(settings: &Settings, topic: &str) -> Result<(), Error> {
    if settings.in_process.is_some() {
        return Ok(());
    }
    let topics = [topic.to_owned()];
    let written = lookup_of(settings, "read_uncommitted")?;
    let written = patiently(move || watermarks(&written, &topics)).await?;
    let committed = Admin::new(settings)?;
    loop {
        let stable = committed.end_offsets(&[topic.to_owned()]).await?;
        if written.iter().all(|(place, (_, end))| stable.get(place).is_some_and(|stable| stable >= end)) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The end of every partition, by number, once Kafka and the topic are there; waits for both.
pub(crate) async fn ends_when_there(settings: &Settings, topic: &str) -> Result<Vec<i64>, Error> {
    let admin = Admin::new(settings)?;
    let topics = [topic.to_owned()];
    let mut told = false;
    loop {
        match admin.end_offsets(&topics).await {
            Ok(ends) => return Ok(ends.into_values().collect()),
            Err(error @ (Error::Unavailable(_) | Error::TopicMissing(_))) => {
                if !std::mem::replace(&mut told, true) {
                    let error = chain(&error);
                    tracing::warn!(topic, error, "the topic cannot be read yet; retrying");
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            Err(error) => return Err(error),
        }
    }
}
