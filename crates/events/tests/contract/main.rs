//! What the other crates, other implementations and older versions of ourselves rely on.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "these are tests; clippy sees only their functions so")]

mod answered;
mod asyncapi;
mod codec;
mod compatibility;
mod drawn;
mod evolution;
mod golden;
mod later;
mod records;
mod sample;
mod speed;
mod told;
