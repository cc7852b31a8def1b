//! Whole-system tests with faults: real processes of the one binary, on a real Kafka, registry and Postgres, with the
//! shop of `examples/shop` at the other end. The tests are in `tests/it`; those in `tests/stack` drive whole stacks.

pub mod panels;
