//! What the other crates, other implementations and older versions of ourselves rely on.

mod codec;
mod evolution;
mod golden;
mod records;
mod sample;
mod speed;
