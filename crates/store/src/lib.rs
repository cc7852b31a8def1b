//! Postgres: migrations, one module of plain functions per table, the outbox.
//!
//! A service opens one [`Pool`] under its own [`Role`]; the role's grants limit its access, whichever login is used.
//! Functions that read, or that are a transaction of their own, take the pool; functions that are part of a larger
//! effect take a [`Tx`].
//!
//! Invariant: records leave Postgres for Kafka only as rows of the outbox, written in the transaction of their cause.
//! Invariant: no function waits without a bound; [`Error::is_unavailable`] tells if a retry may succeed.

pub mod acceptances;
mod announce;
pub mod api_keys;
pub mod audit;
pub mod breakers;
pub mod callers;
pub mod cancels;
mod columns;
pub mod dead_letters;
mod error;
pub mod flags;
pub mod flows;
pub mod history;
pub mod holds;
pub mod idempotency;
pub mod jobs;
pub mod kept_jobs;
pub mod lanes;
pub mod letters;
mod listen;
mod migrate;
mod observed;
pub mod offsets;
pub mod open_jobs;
pub mod outbox;
mod partitions;
pub mod polling;
mod pool;
pub mod reader;
pub mod relayed;
mod retention;
pub mod schedules;
pub mod signals;
pub mod slot;
pub mod statistics;
pub mod sweep;
pub mod tenants;
pub mod unrelayed;
pub mod watched;
pub mod webhooks;
pub mod workers;

pub use error::{Error, is_unavailable};
pub use listen::Listener;
pub use migrate::migrate;
pub use pool::{Pool, Role, Settings, Tx};
pub use retention::Retired;
