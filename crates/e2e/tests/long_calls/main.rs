//! Calls that take long: they hold nothing up, nothing cuts or repeats them, and they end once. Logs stay in
//! `target/test-logs/long_calls`.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "set-up of tests: a failure is the test's")]
#![expect(clippy::print_stderr, reason = "a test tells what it measured")]

mod called;
mod comings;
mod ends;
mod figures;
mod load;
mod long;
mod outages;
mod partition;
mod queues;
mod stage;
#[path = "../it/turn.rs"]
mod turn;
mod watch;
