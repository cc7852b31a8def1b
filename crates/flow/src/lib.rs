//! Flows, and the decision about what comes next in a job.
//!
//! Everything here is a pure function of its arguments: no I/O, no clock, no chance. A worker, the ingest and the
//! simulation call the same [`start`](decide::start) and [`advance`](decide::advance); nothing else decides.
//!
//! Invariant: no type here knows Kafka, Postgres, Avro or HTTP servers.

pub mod answer;
pub mod body;
pub mod callback;
pub mod canonical;
pub mod decide;
mod decimal;
pub mod definition;
pub mod diff;
pub mod document;
mod env;
pub mod event;
mod expression;
pub mod facts;
pub mod flags;
pub mod id;
mod media_type;
pub mod nearest;
pub mod slip;
pub mod time;
pub mod view;
pub mod word;
