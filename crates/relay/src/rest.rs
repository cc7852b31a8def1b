//! Slips whose queue has no topic: each rests as a hold of reason `missing-step`, as at a worker, and looks again, so
//! that all other rows go on. That is never its job's fault. These are the only records that the relay looks into, and
//! only `events` knows what it finds there.

use std::sync::Arc;

use bus::{Reader, Registry, RegistryError, Unreadable};
use events::rest::{Rest, decode_stray};
use events::topic::Topics;
use events::{Record, Writer};
use tokio::sync::OnceCell;

/// Makes the records. Cheap to clone; asks the registry when it first has to.
#[derive(Debug, Clone)]
pub(crate) struct Rests {
    reader: Reader,
    topics: Topics,
    writer: Arc<OnceCell<Writer>>,
}

impl Rests {
    pub(crate) fn new(registry: Registry, topics: Topics) -> Self {
        Self { reader: Reader::new(registry), topics, writer: Arc::default() }
    }

    /// The records that take the place of a slip. None: it is no slip that this version can read.
    ///
    /// # Errors
    /// The registry does not answer.
    pub(crate) async fn of(&self, record: &Record, now_ms: i64) -> Result<Option<Rest>, RegistryError> {
        let stray = match self.reader.read(record.value.as_deref(), decode_stray).await {
            Ok(stray) => stray,
            Err(Unreadable::NotNow(error @ RegistryError::Unavailable(_))) => return Err(error),
            Err(Unreadable::NotNow(_) | Unreadable::Never(_) | Unreadable::Newer(_)) => return Ok(None),
        };
        let writer = self.writer.get_or_try_init(|| self.make_writer()).await?;
        Ok(stray.rest(writer, record, now_ms))
    }

    async fn make_writer(&self) -> Result<Writer, RegistryError> {
        let (topics, ids) = (self.topics.clone(), self.reader.writer_ids(&self.topics).await?);
        Ok(Writer { topics, ids })
    }
}
