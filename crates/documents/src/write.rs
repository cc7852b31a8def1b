//! Writing a document as its bytes come.

use bytes::{Bytes, BytesMut};
use flow::document::{StoredDocument, hexadecimal};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload};
use service_kit::tasks::spawn_detached;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use crate::{Documents, Error, Owner, count_bytes, key};

/// Bytes of a part. S3 takes no smaller ones but the last, and 10,000 of them: 50 GB.
const PART_BYTES: usize = 5 * 1024 * 1024;

/// A document that is being written. It is there once [`Writing::end`] has given it; before that, dropping this takes
/// back what was written.
pub struct Writing {
    documents: Documents,
    place: Path,
    name: String,
    digest: Sha256,
    size: u64,
    bytes_max: u64,
    part: BytesMut,
    /// Begun once the first part is full: a small document is one request.
    upload: Option<Box<dyn MultipartUpload>>,
    _room: OwnedSemaphorePermit,
}

impl Documents {
    /// Begins a document of this job, once there is room for it. `name`: never used before.
    pub async fn write(&self, owner: Owner<'_>, name: String) -> Writing {
        Writing {
            place: key::of(&self.prefix, owner, &name),
            documents: self.clone(),
            name,
            digest: Sha256::new(),
            size: 0,
            bytes_max: self.bytes_max,
            part: BytesMut::new(),
            upload: None,
            _room: Self::room(&self.writes).await,
        }
    }
}

impl Writing {
    /// The same with a lower limit.
    #[must_use]
    pub fn of_at_most(mut self, bytes_max: u64) -> Self {
        self.bytes_max = self.bytes_max.min(bytes_max);
        self
    }

    /// Adds bytes. Where a part is full, it waits until that is stored.
    ///
    /// # Errors
    /// The store does not answer, or the document is too large. Nothing of it stays.
    pub async fn add(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > self.bytes_max {
            return Err(Error::TooLarge(self.bytes_max));
        }
        self.digest.update(&bytes);
        count_bytes("in", bytes.len());
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(PART_BYTES - self.part.len()));
            self.part.extend_from_slice(&part);
            if self.part.len() == PART_BYTES {
                self.store_part(BytesMut::with_capacity(PART_BYTES)).await?;
            }
        }
        Ok(())
    }

    /// The SHA-256 of the bytes so far, in hexadecimal digits.
    pub fn sha256(&self) -> String {
        hexadecimal(&self.digest.clone().finalize())
    }

    /// Ends it: from now on it is there.
    ///
    /// # Errors
    /// The store does not answer. Nothing of it stays, unless the store has taken it and its answer was lost.
    pub async fn end(mut self, media_type: &str) -> Result<StoredDocument, Error> {
        if self.upload.is_none() {
            let payload = PutPayload::from(std::mem::take(&mut self.part).freeze());
            let stored = self.documents.store.put(&self.place, payload).await;
            self.documents.seen("write", stored)?;
        } else {
            if !self.part.is_empty() {
                self.store_part(BytesMut::new()).await?;
            }
            if let Some(upload) = &mut self.upload {
                let completed = upload.complete().await;
                self.documents.seen("write", completed)?;
            }
            self.upload = None;
        }
        Ok(StoredDocument::new(media_type, self.size, self.sha256(), self.name.clone()))
    }

    async fn store_part(&mut self, next: BytesMut) -> Result<(), Error> {
        let part = std::mem::replace(&mut self.part, next).freeze();
        if self.upload.is_none() {
            let begun = self.documents.store.put_multipart(&self.place).await;
            self.upload = Some(self.documents.seen("write", begun)?);
        }
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let stored = upload.put_part(part.into()).await;
        self.documents.seen("write", stored)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        spawn_detached(async move {
            if let Err(error) = upload.abort().await {
                tracing::debug!(%error, "parts of a document that was broken off stay in the store");
            }
        });
    }
}
