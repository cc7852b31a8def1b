//! The binary as it is shipped: without native steps.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    meanwhile::main(workers::Workers::default())
}
