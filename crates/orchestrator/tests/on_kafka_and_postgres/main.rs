//! The orchestrator on a real Kafka, registry and Postgres. No relay runs: what would go to Kafka is read from the
//! outbox.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "a test that meets an error fails")]

mod breakers;
mod cancel;
mod dead_letters;
mod faults;
mod figures;
mod holds;
mod later;
mod long_calls;
mod projection;
mod resume;
mod signals;
mod stage;
mod stuck;
