//! Tables, slot, topics, schemas and flows, as they must be before the roles start.
//!
//! `meanwhile migrate`, `meanwhile flows apply`, `meanwhile dev` and the tests all call these functions. Each is safe
//! to repeat.
//!
//! Invariant: a flow's queues exist before the flow is applied, so no slip is ever sent to a topic that is not there.

pub mod acls;
pub mod files;
pub mod flows;
mod patience;
mod prepare;
mod schema_ids;

use std::collections::BTreeSet;

use bus::DEFAULT_QUEUE;
use events::topic::Topics;

pub use prepare::{Prepared, prepare};

/// The Kafka, registry and Postgres that are set up.
#[derive(Debug, Clone)]
pub struct Target {
    /// Kafka and the registry.
    pub bus: bus::Settings,
    /// The names of the topics.
    pub topics: Topics,
    /// Postgres, as a role that may create tables, roles and slots.
    pub database_url: String,
}

fn default_queues() -> BTreeSet<String> {
    BTreeSet::from([DEFAULT_QUEUE.to_owned()])
}
