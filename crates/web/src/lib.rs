//! The frame of an HTTP door: the handling of a request that is the same for every door.
//!
//! A door builds its routes and puts a [`frame::Frame`] around them. Each handler then finds a
//! [`context::RequestContext`] in the request: its trace, its correlation id, and the [`caller::Caller`]. Every error
//! that leaves is a [`problem::Problem`] of one catalogue; every request leaves one log line, one span and its metrics.
//! A [`server::Server`] serves a door to its connections, within limits.
//!
//! Invariant: nothing here knows Postgres, flows or the routes of a door.

pub mod arrival;
pub mod browsers;
pub mod caller;
pub mod client_address;
pub mod compress;
pub mod context;
pub mod frame;
mod panic;
pub mod prefer;
pub mod problem;
mod request_info;
pub mod request_log;
pub mod server;
mod spans;
