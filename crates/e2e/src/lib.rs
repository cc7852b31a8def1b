//! Whole-system tests with faults: real processes of the one binary, on a real Kafka, registry and Postgres. In
//! `tests/it` the shop of `examples/shop` is at the other end, in `tests/long_calls` a service whose answers take long;
//! those in `tests/stack` drive whole stacks.

pub mod panels;
