//! The shape of traces, read back from a real Jaeger: `make test-traces`. Logs stay in `target/test-logs/traces`.

#![expect(clippy::unwrap_used, reason = "set-up of tests: a failure is the test's")]

mod jaeger;
mod sampling;
mod shape;
mod stage;
