//! Reads Avro records with the schema that they were written with. Tells a bad record from a registry that is down.

use std::sync::Arc;

use events::schema::subjects;
use events::topic::{DEFAULT_QUEUE, Topics};
use events::{DecodeError, RecordKind, Schemas, WriterIds};

use crate::{Registry, RegistryError};

/// Why a record was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It will never be readable: a dead letter.
    #[error("{0}")]
    Never(String),
    /// The registry does not answer; the record may be fine. Try again.
    #[error(transparent)]
    NotNow(RegistryError),
}

/// Decodes records; asks the registry about each unknown schema id once. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    registry: Registry,
    schemas: Arc<Schemas>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Reader {
    /// Knows no schema yet.
    pub fn new(registry: Registry) -> Self {
        Self { registry, schemas: Arc::new(Schemas::new()) }
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
            found.map(|(_, id)| *id).ok_or_else(|| RegistryError::Refused(format!("no subject holds {kind:?}")))
        };
        let writers = WriterIds::try_from_fn(id_of)?;
        self.schemas.insert_writers(&writers);
        Ok(writers)
    }

    /// Decodes a value with one of events' `decode_*` functions.
    ///
    /// # Errors
    /// [`Unreadable`]: never, or not now.
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
                Err(error) => return Err(Unreadable::Never(error.to_string())),
            };
            match self.registry.resolve(unknown).await {
                Ok(schema) => self.schemas.insert(unknown, &schema),
                Err(RegistryError::Unavailable(error)) => {
                    return Err(Unreadable::NotNow(RegistryError::Unavailable(error)));
                }
                Err(error) => return Err(Unreadable::Never(error.to_string())),
            }
        }
    }
}
