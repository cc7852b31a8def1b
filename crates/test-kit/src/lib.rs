//! The tests' helpers: a real Kafka, registry and Postgres, and the whole system around them.
