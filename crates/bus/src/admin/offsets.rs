//! Offsets: the ends of logs, what groups have committed, how far they lag.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{Admin, LOOK_INTERVAL, REQUEST_TIMEOUT, partitions, patiently};
use crate::connection::Connection;
use crate::consumer::{GroupMetadata, TopicPartition};
use crate::offset_commit::OffsetCommit;
use crate::transaction::{TransactionalProducer, TxError};
use crate::{Error, Settings};

/// The transaction that commits initial offsets.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// (KIP-447 keeps that door for old clients).
    pub async fn commit_initial_offsets(&self, group: &str, topics: &[String]) -> Result<usize, Error> {
        let (settings, group, topics) = (self.settings.clone(), group.to_owned(), topics.to_vec());
        patiently(move || commit_initial(&settings, &group, &topics)).await
    }
}

fn lookup_for(settings: &Settings, group: &str) -> Result<BaseConsumer<Connection>, Error> {
    let config = settings.client_config(&[("group.id", group), ("isolation.level", "read_committed")]);
    Ok(BaseConsumer::from_config_and_context(&config, Connection::new("offsets"))?)
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

fn committed(
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
    let read = || -> KafkaResult<BTreeMap<TopicPartition, i64>> {
        let mut found = BTreeMap::new();
        for element in list.elements() {
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                found.insert(TopicPartition::new(element.topic(), element.partition()), offset);
            }
        }
        Ok(found)
    };
    Ok(read()?)
}

fn commit_initial(settings: &Settings, group: &str, topics: &[String]) -> Result<usize, Error> {
    let lookup = lookup_for(settings, group)?;
    let places = places(&lookup, topics)?;
    let known = committed(settings, group, &places)?;
    let starts = watermarks(&lookup, topics)?;
    let missing: Vec<OffsetCommit> = starts
        .into_iter()
        .filter(|(place, _)| !known.contains_key(place))
        .map(|(place, (start, _))| OffsetCommit {
            topic: place.topic,
            partition: place.partition,
            next_offset: start,
            metadata: None,
        })
        .collect();
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
    let transact = |producer: &mut TransactionalProducer| {
        producer.init(REQUEST_TIMEOUT)?;
        producer.begin()?;
        producer.send_offsets(&missing, &metadata)?;
        producer.commit()
    };
    match transact(&mut producer) {
        Ok(()) => Ok(missing.len()),
        Err(TxError::Retriable(cause)) => Err(Error::unavailable(cause)),
        Err(error) => Err(Error::refused(format!("initial offsets of {group}: {:#}", anyhow::Error::new(error)))),
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
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::warn!(topic, error, "the topic cannot be read yet; retrying");
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            Err(error) => return Err(error),
        }
    }
}
