//! Stacks of docker-compose.yml, shaken or lost under load. Afterwards all topics are read back: every job that was
//! accepted has ended once, and the books of the shop agree.
//!
//! The scripts of `scripts/stack/` run these tests, one each; they take the ports of the stack and up to half an hour.
//! The environment may change `RATE` (orders a second), `AWAY_S`, `BEFORE_S` and `AFTER_S` (seconds), keep the stack
//! (`KEEP`), and name a file for the report (`REPORT`).

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "set-up of a test: a failure is the test's")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the person at the script follows the run")]

mod compose;
mod dashboards;
mod load;
mod reckoning;
mod recovery;
mod report;
mod restore;
