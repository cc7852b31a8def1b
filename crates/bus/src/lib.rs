//! Kafka: producers, consumers, tables, the registry client, the in-process broker.
