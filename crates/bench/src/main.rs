//! Benchmarks, reported as ratios in one run.

fn main() {}
