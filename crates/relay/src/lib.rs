//! Moves outbox rows into Kafka in commit order, exactly once.
