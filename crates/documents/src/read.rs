//! Reading a document, whole or in part, as a stream.

use std::ops::Range;

use bytes::Bytes;
use flow::document::{StoredDocument, hexadecimal};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use object_store::{GetOptions, GetRange, ObjectStore as _};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use crate::{Documents, Error, Owner, count_bytes, count_failure, key};

/// The bytes of a document as they come. Of a whole one the last bytes come only once the digest of all is right: a
/// reader who knows the size never takes other bytes for the document.
pub type Reading = BoxStream<'static, Result<Bytes, Error>>;

impl Documents {
    /// Begins to read a document, or a part of it, once there is room for it.
    ///
    /// # Errors
    /// The store does not answer, or has something else there, or nothing.
    pub async fn read(
        &self,
        owner: Owner<'_>,
        document: &StoredDocument,
        range: Option<Range<u64>>,
    ) -> Result<Reading, Error> {
        let room = Self::room(&self.reads).await;
        let is_whole = range.is_none();
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let found = self.store.get_opts(&key::of(&self.prefix, owner, &document.name), options).await;
        let found = self.seen("read", found)?;
        if found.meta.size != document.size {
            count_failure("read");
            return Err(Error::Changed);
        }
        let rest = Rest {
            documents: self.clone(),
            chunks: found.into_stream(),
            held: None,
            check: is_whole.then(|| (Sha256::new(), document.sha256.clone())),
            _room: room,
        };
        Ok(stream::try_unfold(rest, Rest::next).boxed())
    }
}

struct Rest {
    documents: Documents,
    chunks: BoxStream<'static, object_store::Result<Bytes>>,
    /// The bytes that came last, and are not given yet.
    held: Option<Bytes>,
    /// Of a whole document: the digest so far, and that which it must be.
    check: Option<(Sha256, String)>,
    _room: OwnedSemaphorePermit,
}

impl Rest {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        loop {
            let Some(chunk) = self.chunks.next().await else {
                if let Some((digest, expected)) = self.check.take()
                    && hexadecimal(&digest.finalize()) != expected
                {
                    count_failure("read");
                    return Err(Error::Changed);
                }
                return Ok(self.held.take().map(|last| (last, self)));
            };
            let chunk = self.documents.seen("read", chunk)?;
            if chunk.is_empty() {
                continue;
            }
            count_bytes("out", chunk.len());
            if let Some((digest, _)) = &mut self.check {
                digest.update(&chunk);
            }
            if let Some(before) = self.held.replace(chunk) {
                return Ok(Some((before, self)));
            }
        }
    }
}
