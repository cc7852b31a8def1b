//! Everything in `bus` against a real broker: what is promised to the services.

mod admin;
mod consumer;
mod follower;
mod in_process;
mod kit;
mod recovery;
mod registry;
mod table;
mod transaction;
