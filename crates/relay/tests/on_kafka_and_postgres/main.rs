//! The relay on a real Kafka and a real Postgres.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

mod child;
mod deliver;
mod faults;
mod maintain;
mod polling;
mod rate;
mod recover;
mod refuse;
mod rest;
mod stage;
mod takeover;
