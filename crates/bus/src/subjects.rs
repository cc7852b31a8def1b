//! Registers the published schemas, and learns the ids under which records are written.

use std::collections::BTreeSet;

use events::schema::{self, Subject};
use events::topic::Topics;
use events::{RecordKind, WriterIds};

use crate::{DEFAULT_QUEUE, Registry, RegistryError, until_available};

/// A new schema must be able to read the records of every older one.
const COMPATIBILITY: &str = "BACKWARD_TRANSITIVE";

/// The ids of the latest schemas, registered if they were not. A schema has one id under whichever subject, so one
/// queue stands for all.
pub async fn writer_ids(registry: &Registry, topics: &Topics) -> Result<WriterIds, RegistryError> {
    let mut ids = Vec::new();
    for subject in schema::subjects(topics, [DEFAULT_QUEUE]) {
        ids.push((subject.kind, registry.register(&subject.name, subject.avsc).await?));
    }
    WriterIds::try_from_fn(|kind: RecordKind| {
        let found = ids.iter().find(|(of, _)| *of == kind);
        found.map(|(_, id)| *id).ok_or_else(|| RegistryError::Refused(format!("no subject for {kind:?}")))
    })
}

/// Registers the schema of every topic and of these queues' topics, and sets the compatibility of each. Waits for a
/// registry that does not answer. Returns how many subjects there are.
///
/// # Errors
/// The registry refuses a schema.
pub async fn register_subjects(
    registry: &Registry,
    topics: &Topics,
    queues: &BTreeSet<String>,
) -> Result<usize, RegistryError> {
    let queues: BTreeSet<&str> = queues.iter().map(String::as_str).chain([DEFAULT_QUEUE]).collect();
    let subjects = schema::subjects(topics, queues);
    for Subject { name, avsc, .. } in &subjects {
        until_available(|| registry.register(name, avsc)).await?;
        until_available(|| registry.set_compatibility(name, COMPATIBILITY)).await?;
    }
    Ok(subjects.len())
}
