//! Workers against a real Kafka and registry.

mod faults;
mod http;
mod moves;
mod stage;
mod unreadable;
