//! Kafka, and nothing but Kafka: producers, consumers, tables, the registry client, the in-process broker.
//!
//! Invariant: no other crate uses rdkafka or schema_registry_converter; nothing here knows what a record says.
//! Consumers read `read_committed`, never commit offsets by themselves, and never guess where to start.
//! librdkafka's callbacks run on threads of our own, never on a tokio worker.

mod backlog;
mod batch;
mod connection;
mod consumer;
mod error;
mod follower;
mod in_process;
mod lossy;
mod offset_commit;
mod producer;
mod reader;
mod registry;
mod registry_access;
mod renewing;
mod security;
mod settings;
mod single;
mod subjects;
mod table;
mod tail;
mod topic_limits;
mod transaction;
mod unreadable;

pub mod admin;
pub mod bisection;

pub use backlog::{Backlog, Waiting};
pub use consumer::{
    AssignedPartition, Commands, ConsumerError, ConsumerOptions, Control, GroupConsumer, GroupMetadata, Handler, Start,
    TopicPartition,
};
pub use error::{Cause, Error};
pub use events::record::{Inbound, Record};
pub use events::topic::DEFAULT_QUEUE;
pub use follower::{Follower, FollowerOptions, PartitionRecords, RecordBatch};
pub use in_process::{DevCapacity, InProcess, OverCapacity, Writes};
pub use lossy::LossyProducer;
pub use offset_commit::OffsetCommit;
pub use producer::Producer;
pub use reader::{Reader, Unreadable};
pub use registry::{Registry, RegistryError, until_available};
pub use registry_access::{BasicAuth, RegistryAccess};
pub use security::BadProperty;
pub use settings::Settings;
pub use single::SingleRecords;
pub use subjects::register_subjects;
pub use table::{Past, Table, TableTail};
pub use tail::Tail;
pub use topic_limits::{Misfit, TopicLimits};
pub use transaction::{Interrupt, TopicLook, TransactionalProducer, TxError, Undelivered};
