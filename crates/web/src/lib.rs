//! The frame of an HTTP door: everything about a request that does not depend on which door it came through.
//!
//! A door builds its routes and puts a [`frame::Frame`] around them. Each handler then finds a
//! [`context::RequestContext`] in the request: its trace, its correlation id, and the [`caller::Caller`]. Every error
//! that leaves is a [`problem::Problem`] of one catalogue; every request leaves one log line, one span and its metrics.
//!
//! Invariant: nothing here knows Postgres, flows or the routes of a door.

pub mod caller;
pub mod context;
pub mod frame;
mod panic;
pub mod problem;
mod request_info;
pub mod request_log;
mod spans;
