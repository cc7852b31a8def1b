//! The orchestrator on a real Kafka, registry and Postgres. No relay runs: what would go to Kafka is read from the
//! outbox.
#![expect(clippy::unwrap_used, reason = "a test that meets an error fails")]

mod dead_letters;
mod faults;
mod figures;
mod holds;
mod long_calls;
mod projection;
mod resume;
mod stage;
