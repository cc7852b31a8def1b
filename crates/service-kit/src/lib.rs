//! The frame of a process: configuration, telemetry, health, shutdown.
//!
//! A role reads its [`config`] once, starts [`telemetry`], reports its dependencies to a [`health::Readiness`], tries
//! again with [`retry`], and leaves when the token of [`shutdown`] is cancelled. Time, chance and ids come from
//! [`Clock`] and [`Ids`], handed in.
//!
//! Invariant: nothing here knows Postgres, flows or jobs, or speaks to Kafka. [`trace`] takes the trace context of
//! `events`, and names the attributes of spans about messages.

pub mod config;
pub mod due;
mod error_chain;
pub mod health;
pub mod identity;
pub mod retry;
pub mod set_back;
pub mod shutdown;
mod stop;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod trace;

pub use error_chain::error_chain;
pub use health::Readiness;
pub use identity::{Clock, Ids};
pub use stop::stop_at;
pub use tokio_util::sync::CancellationToken;
