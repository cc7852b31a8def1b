//! Runs steps and decides what is next: slips in, slips, holds and events out, in one Kafka transaction.

pub mod lanes;
pub mod ledger;
