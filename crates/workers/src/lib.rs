//! Runs steps and decides what is next: slips in, slips, holds and events out, in one Kafka transaction.

mod board;
mod cadence;
mod lanes;
mod ledger;
mod load;
