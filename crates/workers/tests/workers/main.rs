//! Workers against a real Kafka and registry.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "a test that meets an error fails")]

mod auth;
mod bodies;
mod cancel;
mod documents;
mod faults;
mod halted;
mod http;
mod metrics;
mod missing;
mod moves;
mod progress;
mod redelivered;
mod rounds;
mod stage;
mod stopped;
mod topics;
mod unreadable;
