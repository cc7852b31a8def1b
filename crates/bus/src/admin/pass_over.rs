//! The way past a batch that cannot be read, by an operator's word.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;

use super::offsets::{committed, lookup_for, transaction_error};
use super::{Admin, REQUEST_TIMEOUT, patiently};
use crate::consumer::{GroupMetadata, TopicPartition};
use crate::offset_commit::OffsetCommit;
use crate::transaction::{TransactionalProducer, TxError};
use crate::unreadable::Looker;
use crate::{Error, Record, Settings};

/// The transaction that moves the offset.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// A batch that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableBatch {
    /// The offset behind it.
    pub end: i64,
    /// librdkafka's own text.
    pub reason: String,
}

impl Admin {
    /// The batch at this offset, or the next one behind it, if that cannot be read; none if it can.
    pub async fn unreadable_batch(
        &self,
        place: &TopicPartition,
        offset: i64,
    ) -> Result<Option<UnreadableBatch>, Error> {
        let topics = [place.topic.clone()];
        let (start, log_end) = self
            .offsets(&topics)
            .await?
            .get(place)
            .copied()
            .ok_or_else(|| Error::TopicMissing(format!("{place} (the topic has fewer partitions)")))?;
        if !(start..log_end).contains(&offset) {
            return Err(Error::refused(format!("{place}: offset {offset} is not in the log ({start} to {log_end})")));
        }
        let (settings, place) = (self.settings.clone(), place.clone());
        patiently(move || {
            let config =
                settings.client_config(&[("group.id", "meanwhile-topics-skip"), ("isolation.level", "read_committed")]);
            let found = Looker::new(&config)?.end_of_unreadable(&place, offset, log_end)?;
            Ok(found.map(|(end, reason)| UnreadableBatch { end, reason }))
        })
        .await
    }

    /// Moves the group's committed offset of a partition, also while members are at work, and sends this record, in one
    /// transaction. [`Error::Refused`]: the group has another offset by now.
    pub async fn pass_over(
        &self,
        group: &str,
        place: &TopicPartition,
        from: i64,
        to: i64,
        record: &Record,
    ) -> Result<(), Error> {
        let (settings, group, place, record) = (self.settings.clone(), group.to_owned(), place.clone(), record.clone());
        patiently(move || pass_over(&settings, &group, &place, (from, to), &record)).await
    }
}

fn pass_over(
    settings: &Settings,
    group: &str,
    place: &TopicPartition,
    (from, to): (i64, i64),
    record: &Record,
) -> Result<(), Error> {
    let lookup = lookup_for(settings, group)?;
    let metadata = lookup.group_metadata().map(|metadata| GroupMetadata::Kafka(Arc::new(metadata)));
    let metadata = metadata.ok_or_else(|| Error::refused("no group metadata without a group"))?;
    let mut producer = TransactionalProducer::new(settings, &format!("{group}-pass-over"), TRANSACTION_TIMEOUT)?;
    producer.init(REQUEST_TIMEOUT).map_err(|error| transaction_error(group, error))?;
    // From here on another caller ends this producer before it commits.
    let stands = committed(settings, group, std::slice::from_ref(place))?.get(place).copied();
    if stands != Some(from) {
        let stands = stands.map_or("nowhere".to_owned(), |offset| format!("at {offset}"));
        return Err(Error::refused(format!("{place}: the group {group} stands {stands} by now, not at {from}")));
    }
    let TopicPartition { topic, partition } = place.clone();
    let commit = [OffsetCommit { topic, partition, next_offset: to, metadata: None }];
    let transact = |producer: &mut TransactionalProducer| -> Result<(), TxError> {
        producer.begin()?;
        producer.send(record)?;
        producer.send_offsets(&commit, &metadata)?;
        producer.commit()
    };
    transact(&mut producer).map_err(|error| transaction_error(group, error))
}
