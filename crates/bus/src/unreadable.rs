//! Batches that cannot be read at all: they cannot be decompressed, say. librdkafka tells of one
//! without its partition, so a reader of its own looks at a place.
//!
//! Checksums are not checked (`check.crcs`): behind a batch with a wrong one librdkafka 2.12 goes on at a wrong byte,
//! takes an offset from there, and may do so for ever (`rd_kafka_buf_skip_to(rkbuf, crc_len)` in
//! `rd_kafka_msgset_reader_v2`).

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use events::place::TopicPartition;

use crate::Error;
use crate::connection::Connection;

/// The time limit of one look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit of the question whether the leader answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The reason for which nothing of a batch can be read, where librdkafka gives none.
const CUT_OFF: &str = "nothing comes of it, though the log goes on: its records seem to be cut off";
/// The interval at which its end is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// True if an error of this code is about a batch.
pub(crate) fn is_unreadable(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BadMessage
            | Code::BadCompression
            | Code::NotImplemented
            | Code::InvalidMessage
            | Code::MessageSizeTooLarge
    )
}

/// What lies at a place, or behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sight {
    /// The next record has this offset.
    Record(i64),
    /// There is nothing more to read at present.
    End,
    /// A batch that cannot be read, and librdkafka's reason.
    Unreadable(String),
    /// The log goes on, its leader answers, and yet nothing can be read: the records of a batch are cut off.
    CutOff,
}

/// A reader without a group that looks at single places.
pub(crate) struct Looker {
    consumer: BaseConsumer<Connection>,
}

impl Looker {
    /// `config`: that of a consumer.
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, Error> {
        let mut config = config.clone();
        // One record is enough.
        config.set("enable.partition.eof", "true").set("queued.min.messages", "1");
        config.set("enable.auto.commit", "false").set("auto.offset.reset", "error");
        let consumer = BaseConsumer::from_config_and_context(&config, Connection::new("looker"))?;
        Ok(Self { consumer })
    }

    /// What lies at this offset.
    pub(crate) fn look(&self, place: &TopicPartition, offset: i64) -> Result<Sight, Error> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&place.topic, place.partition, Offset::Offset(offset))?;
        self.consumer.assign(&list)?;
        let deadline = Instant::now() + LOOK_TIMEOUT;
        while Instant::now() < deadline {
            match self.consumer.poll(POLL_INTERVAL) {
                None => {}
                Some(Ok(message)) => return Ok(Sight::Record(message.offset())),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(Sight::End),
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(code) if is_unreadable(code) => {
                        return Ok(Sight::Unreadable(self.consumer.context().last_reason()));
                    }
                    Some(code) if crate::error::is_unavailable(code) => {}
                    _ => return Err(error.into()),
                },
            }
        }
        // Before the end of what a reader may see, a record or that end comes at once.
        let marks = self.consumer.fetch_watermarks(&place.topic, place.partition, ANSWER_TIMEOUT);
        match marks {
            Ok((start, end)) if (start..end).contains(&offset) => Ok(Sight::CutOff),
            Ok(_) | Err(_) => Err(Error::unavailable(format!("{place}: no answer at offset {offset}"))),
        }
    }

    /// The offset behind the batch that cannot be read at this one; none if it can be read. `log_end`: of the
    /// partition.
    pub(crate) fn end_of_unreadable(
        &self,
        place: &TopicPartition,
        offset: i64,
        log_end: i64,
    ) -> Result<Option<(i64, String)>, Error> {
        let (reason, base) = match self.look(place, offset)? {
            Sight::Unreadable(reason) => match base_of(&reason) {
                Some(base) => (reason, Some(base)),
                None => return Err(Error::refused(format!("{place}: {reason}"))),
            },
            Sight::CutOff => (CUT_OFF.to_owned(), None),
            Sight::Record(_) | Sight::End => return Ok(None),
        };
        let within = |offset: i64| match self.look(place, offset)? {
            Sight::Unreadable(reason) => Ok::<bool, Error>(base.is_some() && base_of(&reason) == base),
            Sight::CutOff => Ok(base.is_none()),
            Sight::Record(_) | Sight::End => Ok(false),
        };
        // Each offset of a batch is answered by the whole batch, which the reason names by its first offset.
        let (mut inside, mut outside, mut step) = (offset, log_end, 1);
        while inside + step < outside {
            match within(inside + step)? {
                true => (inside, step) = (inside + step, step * 2),
                false => outside = inside + step,
            }
        }
        while inside + 1 < outside {
            let middle = inside + (outside - inside) / 2;
            if within(middle)? { inside = middle } else { outside = middle }
        }
        Ok(Some((outside, reason)))
    }
}

/// The first offset of the batch that librdkafka's reason is about.
fn base_of(reason: &str) -> Option<i64> {
    let (_, rest) = reason.split_once("at offset ").or_else(|| reason.split_once("of message at "))?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_the_first_offset_of_its_batch() {
        let crc = "MessageSet at offset 17 (81 bytes) failed CRC32C check (original 0x1 != calculated 0x2)";
        let codec = "Decompression (codec 0x7) of message at 230 of 12 bytes failed: Local: Not implemented";
        assert_eq!([crc, codec, "something else"].map(base_of), [Some(17), Some(230), None]);
    }
}
