//! The rules of the repository as tests.
//!
//! Here are the checkers, pure, each with a test that it can fail; `tests/repository.rs` holds the repository to them.
//! A checker returns one line per finding, saying where and what.

pub mod circles;
pub mod documents;
pub mod image;
pub mod layer;
pub mod log_lines;
pub mod metrics;
pub mod size;
pub mod text;
