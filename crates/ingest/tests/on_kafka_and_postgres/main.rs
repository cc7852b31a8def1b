//! The door on a real Kafka, registry and Postgres. No relay runs: what would go to Kafka is read from the outbox.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "a test that meets an error fails")]

mod answers;
mod api_keys;
mod asyncapi;
mod audit;
mod batch;
mod breakers;
mod bulk;
mod callback;
mod callers;
mod cancel;
mod commands;
mod credentials;
mod dead_letters;
mod delayed;
mod described;
mod faults;
mod flags;
mod held;
mod job_webhooks;
mod keys;
mod limits;
mod list_jobs;
mod metrics;
mod modes;
mod old_service;
mod polls;
mod progress;
mod refuse;
mod result_ttl;
mod retire;
mod retry;
mod routes;
mod schedules;
mod signal;
mod signed;
mod stage;
mod stats;
mod status;
mod stream_client;
mod streams;
mod streams_bounds;
mod streams_of_all;
mod submit;
mod tenants;
mod topics;
mod trailers;
mod undone;
mod wait;
mod webhooks;
