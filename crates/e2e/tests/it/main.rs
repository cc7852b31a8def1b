//! The whole system with faults. `E2E_SEED=7 cargo test -p e2e NAME` replays a run; logs stay in `target/test-logs/it`.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "set-up of tests: a failure is the test's")]
#![expect(clippy::print_stderr, reason = "a failure tells how to replay it, and where its logs are")]

mod answers;
mod backpressure;
mod breakers;
mod brokers;
mod bulk;
mod callbacks;
mod callers;
mod cancel;
mod chance;
mod classes;
mod client;
mod command_line;
mod commands;
mod dashboards;
mod dead_letters;
mod delayed;
mod dev_mode;
mod documents;
mod eta;
mod failover;
mod faults;
mod flows_diff;
mod idempotency;
mod jobs_on_the_command_line;
mod key_order;
mod keys;
mod kills;
mod late_requests;
mod leaderless;
mod limits;
mod load;
mod missing_queue;
mod operators;
mod outcomes;
mod pauses;
mod polling;
mod progress;
mod protocols;
mod proxies;
mod rebalances;
mod redrive_trace;
mod registry;
mod retry;
mod rights;
mod rolling;
mod rollout;
mod schedules;
mod seams;
mod signals;
mod skip;
mod stage;
mod status;
mod streams;
mod traces;
mod turn;
mod uncertain;
mod unreadable;
mod upgrade;
mod waits;
mod webhooks;
