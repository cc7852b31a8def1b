//! Rule 3, once for all services: a batch of records is read from Kafka, and its effects and the next offsets of its
//! partitions are committed in one Postgres transaction.
//!
//! A [`Service`] decides the effects of the records and writes them. The transaction, the offsets, the retries and the
//! readiness are handled here, so no service can forget an offset.
//!
//! A batch that cannot be applied now is tried again. A batch that conflicts with another process is read again. A
//! batch that a single record spoils is halved until that record is alone, and then the service refuses the record. So
//! no record is skipped, and no record can wedge a partition. A batch that is more than may be taken now is halved,
//! too.

mod apply;
mod halve;

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use bus::{
    Follower, FollowerOptions, Inbound, OverCapacity, Reader, RecordBatch, Registry, RegistryError, TopicPartition,
};
use events::WriterIds;
use events::topic::Topics;
use service_kit::health::Readiness;
use service_kit::identity::Ids;
use service_kit::retry::until_ok;
use store::{Pool, Tx};
use tokio_util::sync::CancellationToken;

/// The time limit for leaving the group.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A service that applies the records that it follows.
pub trait Service: Send {
    /// The changes that records make, not yet written.
    type Effects: Send + Sync;

    /// Decides the effects of a batch, in the order of its records. Writes nothing: the same records may be read again.
    fn read(&mut self, batch: &RecordBatch) -> impl Future<Output = Result<Self::Effects, Error>> + Send;

    /// Decides what remains of a record whose effects Postgres refuses: a dead letter, or nothing.
    fn refuse(&mut self, record: &Inbound, reason: &str) -> Self::Effects;

    /// Writes the effects. The offsets move in the same transaction, after this.
    fn write(&mut self, tx: &mut Tx, effects: &mut Self::Effects) -> impl Future<Output = Result<(), Error>> + Send;

    /// The effects are committed. Logs and metrics belong here: each batch comes here once.
    fn committed(&mut self, effects: Self::Effects);

    /// The effects were not committed. They are read and written again.
    fn failed(&mut self, effects: Self::Effects, error: &Error) {
        let _ = (effects, error);
    }
}

/// The reason for which a batch was not applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres refused a row or an offset, or does not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The registry does not answer, and a record was written with a schema that is not known here.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The effects do not fit into the broker of `meanwhile dev` now.
    #[error(transparent)]
    OverCapacity(#[from] OverCapacity),
    /// So many records may not be taken now: fewer may, or the same later.
    #[error("the allowance is used up")]
    NotYet,
}

impl Error {
    /// True if some of the records may be applied all the same.
    fn may_be_of_some(&self) -> bool {
        match self {
            Self::Store(error) => error.is_row_error(),
            Self::NotYet => true,
            Self::Registry(_) | Self::OverCapacity(_) => false,
        }
    }
}

/// Follows topics for one service.
#[derive(Debug)]
pub struct Inbox {
    bus: bus::Settings,
    pool: Pool,
    readiness: Readiness,
    /// The dependency by which readiness tells of partitions that are left unread.
    offsets: &'static str,
}

impl Inbox {
    /// Connects to nothing yet. The offsets are kept in the schema of the pool's role.
    pub const fn new(bus: bus::Settings, pool: Pool, readiness: Readiness) -> Self {
        Self { bus, pool, readiness, offsets: "offsets" }
    }

    /// For the second inbox of a process: readiness tells of its unread partitions by this name.
    #[must_use]
    pub fn telling_of_offsets_as(self, offsets: &'static str) -> Self {
        Self { offsets, ..self }
    }

    /// A reader of Avro records, and the ids of the schemas that records are written with. Waits for the registry;
    /// none: shutdown came first.
    ///
    /// # Errors
    /// The registry's URL cannot be used.
    pub async fn reader(
        &self,
        topics: &Topics,
        ids: &Ids,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Option<(Reader, WriterIds)>> {
        let registry = Registry::of(&self.bus).context("SCHEMA_REGISTRY_URL cannot be used")?;
        let reader = Reader::new(registry);
        let writers = until_ok("registry", &self.readiness, ids, shutdown, || reader.writer_ids(topics)).await;
        Ok(writers.map(|writers| (reader, writers)))
    }

    /// Applies records until shutdown.
    ///
    /// # Errors
    /// Only errors that a retry does not mend: an offset that is no longer in the log, a broken client.
    pub async fn run<S: Service>(
        self,
        options: FollowerOptions,
        service: S,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        let (pool, readiness) = (self.pool.clone(), self.readiness.clone());
        let positions = move |places: Vec<TopicPartition>| {
            let (pool, readiness) = (pool.clone(), readiness.clone());
            async move { Ok(readiness.report("postgres", store::offsets::positions(&pool, &places).await)?) }
        };
        let mut follower = Follower::start(&self.bus, options, positions)?;
        let mut applier = apply::Applier::new(self.pool, (self.readiness, self.offsets), service);
        let outcome = applier.run(&mut follower, shutdown).await;
        follower.stop(LEAVE_TIMEOUT).await;
        Ok(outcome?)
    }
}
