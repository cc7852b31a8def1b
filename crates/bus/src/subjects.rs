//! Registers the published schemas.

use std::collections::BTreeSet;

use events::schema::{self, Subject};
use events::topic::Topics;

use crate::{DEFAULT_QUEUE, Registry, RegistryError, until_available};

/// A new schema must be able to read the records of every older one.
const COMPATIBILITY: &str = "BACKWARD_TRANSITIVE";

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
