//! Workers against a real Kafka and registry.
#![expect(clippy::unwrap_used, reason = "a test that meets an error fails")]

mod faults;
mod http;
mod metrics;
mod moves;
mod redelivered;
mod stage;
mod unreadable;
