//! Reads Avro records with the schema that they were written with. Tells a bad record from a registry that is down, and
//! from one that has lost its content: then our own published schemas read what they can.

mod lost;

use std::sync::Arc;
use std::time::Instant;

use events::schema::subjects;
use events::topic::{DEFAULT_QUEUE, Topics};
use events::{DecodeError, RecordKind, Schemas, WriterIds, unframe};

use parking_lot::Mutex;

use self::lost::Lost;
use crate::error::chain;
use crate::registry::until_available;
use crate::{Registry, RegistryError};

/// The reason for which a record was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It will never be readable: a dead letter.
    #[error("{0}")]
    Never(String),
    /// A later version has written it, and this one would lose or misunderstand some of it: it is to be kept as it is.
    #[error("{0}")]
    Newer(String),
    /// The registry does not answer, or it does not know the schema, for a short time; the record may be fine. Try
    /// again.
    #[error(transparent)]
    NotNow(RegistryError),
}

/// Decodes records; asks the registry about each unknown schema id once. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    registry: Registry,
    schemas: Arc<Schemas>,
    published: Arc<Schemas>,
    lost: Arc<Mutex<Lost>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Reader {
    /// Knows no schema yet.
    pub fn new(registry: Registry) -> Self {
        let (schemas, published) = (Arc::new(Schemas::new()), Arc::new(Schemas::published()));
        Self { registry, schemas, published, lost: Arc::default() }
    }

    /// The ids of our own latest schemas (registered here if they are not), which the reader then knows too.
    ///
    /// # Errors
    /// The registry is not available or refuses a schema.
    pub async fn writer_ids(&self, topics: &Topics) -> Result<WriterIds, RegistryError> {
        let mut ids = Vec::new();
        for subject in subjects(topics, [DEFAULT_QUEUE]) {
            ids.push((subject.kind, self.registry.register(&subject.name, subject.avsc).await?));
        }
        let id_of = |kind: RecordKind| {
            let found = ids.iter().find(|(of, _)| *of == kind);
            found.map(|(_, id)| *id).ok_or_else(|| RegistryError::Refused(format!("no subject holds {kind:?}").into()))
        };
        let writers = WriterIds::try_from_fn(id_of)?;
        self.schemas.insert_writers(&writers);
        Ok(writers)
    }

    /// Waits until the registry answers.
    pub async fn until_registry_answers(&self) {
        // Any error but "unavailable" is an answer.
        let _ = until_available(|| self.registry.reachable()).await;
    }

    /// Decodes a value with one of events' `decode_*` functions.
    ///
    /// # Errors
    /// [`Unreadable`]: never, not by this version, or not now.
    pub async fn read<T>(
        &self,
        value: Option<&[u8]>,
        decode: impl Fn(&Schemas, &[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, Unreadable> {
        let bytes = value.unwrap_or_default();
        loop {
            let unknown = match decode(&self.schemas, bytes) {
                Ok(record) => return Ok(record),
                Err(DecodeError::UnknownSchema(id)) => id,
                Err(DecodeError::Newer(what)) => return Err(Unreadable::Newer(what)),
                Err(error) => {
                    let read = misread_schema(&error, bytes).and_then(|id| self.read_by_published(id, bytes, &decode));
                    return read.ok_or_else(|| Unreadable::Never(error.to_string()));
                }
            };
            if !self.lost.lock().was_asked(unknown, Instant::now()) {
                match self.registry.resolve(unknown).await {
                    Ok(schema) => {
                        self.schemas.insert(unknown, &schema);
                        continue;
                    }
                    Err(RegistryError::Unknown(_)) => self.lost.lock().was_unknown(unknown, Instant::now()),
                    Err(error @ RegistryError::Unavailable(_)) => return Err(Unreadable::NotNow(error)),
                    Err(error) => return Err(Unreadable::Never(chain(&error))),
                }
            }
            let read = self.read_by_published(unknown, bytes, &decode);
            return read.ok_or_else(|| match self.lost.lock().may_come(Instant::now()) {
                true => Unreadable::NotNow(RegistryError::Unknown(unknown)),
                false => Unreadable::Never(RegistryError::Unknown(unknown).to_string()),
            });
        }
    }

    /// Reads a record whose id the registry does not know, or gives to another schema.
    fn read_by_published<T>(
        &self,
        id: u32,
        bytes: &[u8],
        decode: impl Fn(&Schemas, &[u8]) -> Result<T, DecodeError>,
    ) -> Option<T> {
        let read = decode(&self.published, bytes).ok();
        if read.is_some() && self.lost.lock().is_new(id) {
            tracing::error!(
                schema_id = id,
                "the registry has lost a schema, or its ids have changed; our own reads it"
            );
        }
        read
    }
}

/// The schema id of a record that its schema does not fit: it may have named another one once.
fn misread_schema(error: &DecodeError, bytes: &[u8]) -> Option<u32> {
    match error {
        DecodeError::OtherSchema { .. } | DecodeError::Damaged { .. } | DecodeError::TrailingBytes(_) => {
            unframe(bytes).ok().map(|(id, _)| id)
        }
        DecodeError::UnknownSchema(_)
        | DecodeError::Empty
        | DecodeError::NotFramed(_)
        | DecodeError::Newer(_)
        | DecodeError::Field { .. } => None,
    }
}
