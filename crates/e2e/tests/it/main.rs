//! The whole system with faults. `E2E_SEED=7 cargo test -p e2e NAME` replays a run; logs stay in `target/test-logs/it`.

mod chance;
mod client;
mod commands;
mod idempotency;
mod key_order;
mod kills;
mod load;
mod outcomes;
mod pauses;
mod rebalances;
mod stage;
mod status;
mod traces;
mod turn;
