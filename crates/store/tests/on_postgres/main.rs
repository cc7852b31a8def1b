//! The store on a real Postgres, one file per module of it.

#![expect(clippy::disallowed_methods, reason = "tests own what they start")]
#![expect(clippy::unwrap_used, reason = "tests may panic, their helpers too")]
#![expect(clippy::print_stdout, reason = "some tests are run for their figures")]

mod acceptances;
mod breakers;
mod database;
mod dead_letters;
mod flags;
mod flows;
mod generated;
mod grants;
mod holds;
mod job_webhooks;
mod jobs;
mod lanes;
mod lists;
mod migrations;
mod offsets;
mod open_jobs;
mod outbox;
mod plans;
mod polling;
mod retention;
mod scale;
mod schedules;
mod signals;
mod slot;
mod statistics;
mod sweep;
mod tenants;
mod unrelayed;
mod workers;

/// Only ends a test that hangs.
const WITHIN: std::time::Duration = std::time::Duration::from_secs(60);
