//! Single records by their place, without a group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::connection::Connection;
use crate::consumer::inbound;
use crate::renewing::Lookup;
use crate::{Error, Inbound, Settings, TopicPartition};

/// One record has to come within this time.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest poll, between two looks at the clock.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Reads single records. Cheap to clone; reads wait for each other.
#[derive(Clone)]
pub struct SingleRecords(Arc<Shared>);

struct Shared {
    lookup: Lookup,
    /// The client has one assignment at a time.
    turn: Mutex<()>,
}

impl std::fmt::Debug for SingleRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SingleRecords").finish_non_exhaustive()
    }
}

impl SingleRecords {
    /// Connects in the background; fails only for settings that make no client.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let group = format!("{}-single", settings.client_id);
        let own = [
            ("group.id", group.as_str()),
            ("enable.auto.commit", "false"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "error"),
            ("fetch.wait.max.ms", "10"),
            ("queued.max.messages.kbytes", "2048"),
        ];
        let lookup = Lookup::connect("single records", settings, &own)?;
        Ok(Self(Arc::new(Shared { lookup, turn: Mutex::new(()) })))
    }

    /// The record at this place; none if it is not in the log any more, or never was.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn read(&self, place: TopicPartition, offset: i64) -> Result<Option<Inbound>, Error> {
        let shared = Arc::clone(&self.0);
        let read = tokio::task::spawn_blocking(move || {
            let _turn = shared.turn.lock();
            shared.lookup.look(|client| {
                let found = read(client, &place, offset);
                client.unassign()?;
                found
            })
        });
        read.await.unwrap_or_else(|error| Err(Error::refused(format!("a read did not end: {error}"))))
    }
}

fn read(client: &BaseConsumer<Connection>, place: &TopicPartition, offset: i64) -> Result<Option<Inbound>, Error> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(&place.topic, place.partition, Offset::Offset(offset))?;
    client.assign(&list)?;
    let deadline = Instant::now() + READ_TIMEOUT;
    while Instant::now() < deadline {
        match client.poll(POLL_INTERVAL) {
            None => {}
            Some(Ok(message)) if message.offset() == offset => return Ok(Some(inbound(&message))),
            // Records at this place are gone, or there was none.
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(error)) if is_gone(&error) => return Ok(None),
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Err(Error::unavailable(format!("{}/{} was not read within {READ_TIMEOUT:?}", place.topic, place.partition)))
}

fn is_gone(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset))
}
