//! The store on a real Postgres, one file per module of it.

#![expect(clippy::unwrap_used, reason = "tests may panic, their helpers too")]

mod acceptances;
mod database;
mod dead_letters;
mod flows;
mod grants;
mod holds;
mod jobs;
mod lanes;
mod migrations;
mod offsets;
mod outbox;
mod retention;
mod slot;
mod workers;
