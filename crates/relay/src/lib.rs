//! Moves outbox rows into Kafka in commit order, exactly once.

pub mod cursor;
pub mod database;
pub mod pgoutput;
pub mod position;
pub mod row;
