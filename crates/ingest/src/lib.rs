//! The door: HTTP and Kafka commands in, durable jobs and their status out.
