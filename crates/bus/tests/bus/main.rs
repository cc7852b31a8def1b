//! Everything in `bus` against a real broker: what is promised to the services.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod admin;
mod backlog;
mod consumer;
mod deaf;
mod follower;
mod in_process;
mod kit;
mod recovery;
mod registry;
mod security;
mod table;
mod transaction;
mod unreadable;
