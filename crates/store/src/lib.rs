//! Postgres: migrations, one module of plain functions per table, the outbox.
//!
//! A service opens one [`Pool`] under its own [`Role`]; the role's grants decide what it may touch, whoever logs in.
//! Functions that read, or that are a transaction of their own, take the pool; functions that are part of a larger
//! effect take a [`Tx`].
//!
//! Invariant: nothing leaves Postgres for Kafka but by a row of the outbox, written in the transaction of its cause.
//! Invariant: no function waits without a bound; [`Error::is_unavailable`] tells "later" from "never".

pub mod acceptances;
mod columns;
pub mod dead_letters;
mod error;
pub mod flows;
pub mod headers;
pub mod history;
pub mod holds;
pub mod idempotency;
pub mod jobs;
pub mod lanes;
mod migrate;
pub mod offsets;
pub mod outbox;
mod partitions;
mod pool;
pub mod relayed;
mod retention;
pub mod slot;
pub mod workers;

pub use error::{Error, is_unavailable};
pub use migrate::migrate;
pub use pool::{Pool, Role, Settings, Tx};
pub use retention::Retired;
