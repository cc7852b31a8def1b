//! Postgres: migrations, one module of plain functions per table, the outbox.
