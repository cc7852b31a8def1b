//! Whole-system tests with faults: real processes of the one binary, on a real Kafka, registry and Postgres, with the
//! shop
//! of `examples/shop` at the other end. All of it is in `tests/it`.
