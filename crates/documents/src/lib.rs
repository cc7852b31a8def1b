//! The store of documents: an S3 bucket or its like, or a folder. Bytes that are too large for records lie there, and
//! records carry a reference ([`flow::document::StoredDocument`]).
//!
//! Promise: a document is never whole in memory, and 5 MiB of it at most. A reference is given only for bytes that are
//! stored whole, and of each whole read the last bytes are given only once all of them are known to be the ones that
//! the reference tells. No name is used twice, so nothing stored is ever written over.
//!
//! A document belongs to one job, in whose folder it lies: `day/tenant/job/name`. A reference holds only the name, so
//! it leads to no other job, whoever has written it. All that a job has left goes with its folder.
//!
//! Invariant: only this crate knows `object_store`.

mod connect;
mod key;
mod read;
mod sweep;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use flow::document::StoredDocument;
use flow::id::JobId;
use futures_util::StreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use service_kit::CancellationToken;
use service_kit::config::DocumentSettings;
use service_kit::health::Readiness;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use read::Reading;
pub use sweep::{Old, Page};
pub use write::Writing;

/// The name of the store among the dependencies of a role.
pub const DEPENDENCY: &str = "documents";
/// The pauses between two looks whether the store answers: while it does, and while it does not.
const LOOK_EVERY: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Documents that are read at once, for each that may be written: a read holds little.
const READS_PER_WRITE: usize = 16;
/// The longest time that a look takes.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason for which a document was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It may be there again later.
    #[error("the store of documents does not answer")]
    Unavailable(#[source] Cause),
    /// It was there.
    #[error("the document is not in the store of documents any more")]
    Gone,
    /// Somebody has written over it.
    #[error("the bytes in the store of documents are not those of the document")]
    Changed,
    /// It has more bytes than a document may have.
    #[error("the document is larger than {0} bytes")]
    TooLarge(u64),
}

/// An error of the store, without anything of an address that may be a secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Cause(String);

impl Error {
    /// True if the same may work later.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// The job that a document belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    pub tenant: &'a str,
    pub job: JobId,
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Documents {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    writes: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    readiness: Readiness,
    inline_bytes_max: usize,
    bytes_max: u64,
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Documents").field("prefix", &self.prefix.as_ref()).finish_non_exhaustive()
    }
}

impl Documents {
    /// The store that is configured, if one is. It need not answer yet; `readiness` tells whether it does.
    ///
    /// # Errors
    /// The settings name no store.
    pub fn open(settings: &DocumentSettings, readiness: Readiness) -> anyhow::Result<Option<Self>> {
        if settings.url.is_empty() {
            return Ok(None);
        }
        let (store, prefix) = connect::connect(&settings.url, &settings.options)?;
        let writes = Arc::new(Semaphore::new(settings.transfers_max));
        let reads = Arc::new(Semaphore::new(settings.transfers_max.saturating_mul(READS_PER_WRITE)));
        let (inline_bytes_max, bytes_max) = (settings.inline_bytes_max, settings.bytes_max);
        Ok(Some(Self { store, prefix, writes, reads, readiness, inline_bytes_max, bytes_max }))
    }

    /// Documents of more bytes lie in the store.
    pub const fn inline_bytes_max(&self) -> usize {
        self.inline_bytes_max
    }

    /// The most bytes of a document.
    pub const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Copies a document to another job, under its name.
    ///
    /// # Errors
    /// The store does not answer, or has it no longer.
    pub async fn copy(&self, document: &StoredDocument, from: Owner<'_>, to: Owner<'_>) -> Result<(), Error> {
        let place = |owner| key::of(&self.prefix, owner, &document.name);
        self.seen("copy", self.store.copy(&place(from), &place(to)).await)
    }

    /// Removes a document that no record refers to. What is not removed goes with its job's folder.
    pub async fn remove(&self, document: &StoredDocument, owner: Owner<'_>) {
        let outcome = self.store.delete(&key::of(&self.prefix, owner, &document.name)).await;
        let _ = self.seen("delete", outcome);
    }

    /// Looks now and then whether the store answers, until shutdown, so that readiness tells it.
    ///
    /// # Errors
    /// None.
    pub async fn watch(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let looking = async {
            loop {
                let is_there = self.look().await;
                tokio::time::sleep(if is_there { LOOK_EVERY } else { LOOK_AGAIN }).await;
            }
        };
        let _: Option<()> = shutdown.run_until_cancelled(looking).await;
        Ok(())
    }

    /// True if it answers.
    async fn look(&self) -> bool {
        // Nothing lies there. It lists nothing; a bucket that does not exist is an error.
        let nowhere = self.prefix.clone().join("nowhere");
        let listing = async { self.store.list(Some(&nowhere)).next().await };
        match tokio::time::timeout(LOOK_TIMEOUT, listing).await {
            Ok(None | Some(Ok(_))) => {
                self.readiness.ready(DEPENDENCY);
                true
            }
            Ok(Some(Err(error))) => {
                self.missing(&error);
                false
            }
            Err(_) => {
                self.readiness.missing(DEPENDENCY, "no answer in time");
                false
            }
        }
    }

    /// Room for one transfer.
    async fn room(of: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        Arc::clone(of).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Notes whether the store has answered, counts a failure, and tells it in our words.
    fn seen<T>(&self, operation: &'static str, outcome: object_store::Result<T>) -> Result<T, Error> {
        let error = match outcome {
            Ok(value) => {
                self.readiness.ready(DEPENDENCY);
                return Ok(value);
            }
            Err(object_store::Error::NotFound { .. }) if matches!(operation, "read" | "copy") => {
                count_failure(operation);
                return Err(Error::Gone);
            }
            Err(error) => error,
        };
        count_failure(operation);
        Err(Error::Unavailable(self.missing(&error)))
    }

    fn missing(&self, error: &object_store::Error) -> Cause {
        let cause = Cause(without_queries(&error.to_string()));
        self.readiness.missing(DEPENDENCY, &cause);
        cause
    }
}

fn count_failure(operation: &'static str) {
    metrics::counter!("meanwhile_documents_failures_total", "operation" => operation).increment(1);
}

fn count_bytes(direction: &'static str, bytes: usize) {
    metrics::counter!("meanwhile_documents_bytes_total", "direction" => direction).increment(bytes as u64);
}

/// A text without the queries of its URLs, which may hold a signature.
fn without_queries(text: &str) -> String {
    let word = |word: &str| match word.split_once('?') {
        Some((address, _)) if address.contains("://") => format!("{address}?…"),
        _ => word.to_owned(),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
