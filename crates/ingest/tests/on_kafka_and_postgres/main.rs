//! The door on a real Kafka, registry and Postgres. No relay runs: what would go to Kafka is read from the outbox.
#![expect(clippy::unwrap_used, reason = "a test that meets an error fails")]

mod asyncapi;
mod commands;
mod described;
mod faults;
mod keys;
mod metrics;
mod refuse;
mod retry;
mod stage;
mod status;
mod submit;
