//! The one binary: roles and the command line.

fn main() {}
