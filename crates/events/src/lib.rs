//! The contracts on Kafka: records, topics, headers, and how they are encoded.

pub mod header;
pub mod record;
pub mod topic;
pub mod trace;
