//! The relay's metrics and spans.

use events::header;
use events::position::Position;
use events::rest::Rest;
use events::trace::Trace;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use service_kit::trace::{Message, Span, is_on};

use crate::read::Row;

const ACTIVE: &str = "meanwhile_relay_active";
const ROWS: &str = "meanwhile_relay_rows_total";
const TRANSACTIONS: &str = "meanwhile_relay_transactions_total";
const ABORTED: &str = "meanwhile_relay_transactions_aborted_total";
const BATCH: &str = "meanwhile_relay_batch_size";
const DELAY: &str = "meanwhile_relay_delay_seconds";
const REFUSED: &str = "meanwhile_relay_rows_refused_total";
const MISSING: &str = "meanwhile_missing_steps_total";
const HOLDS: &str = "meanwhile_holds_total";
const POSITION: &str = "meanwhile_relay_position_lsn";
const OUTBOX_AGE: &str = "meanwhile_outbox_age_seconds";
const HORIZON_AGE: &str = "meanwhile_relay_horizon_age_seconds";
const SLOT_LAG: &str = "meanwhile_relay_slot_lag_bytes";
const SLOT_WAL_STATUS: &str = "meanwhile_relay_slot_wal_status";
const SLOT_WAL_STATUSES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];
const DROPPED: &str = "meanwhile_outbox_partitions_dropped_total";

/// Says once what each metric means.
pub(crate) fn describe() {
    describe_gauge!(ACTIVE, "1 while this relay delivers, 0 while it stands by or cannot");
    describe_gauge!(SLOT_WAL_STATUS, "1 for the present state of the slot's log in Postgres, 0 for the others");
    describe_counter!(ROWS, "Outbox rows delivered to Kafka");
    describe_counter!(TRANSACTIONS, "Kafka transactions committed");
    describe_counter!(ABORTED, "Kafka transactions aborted");
    describe_histogram!(BATCH, "Rows in one Kafka transaction");
    describe_histogram!(
        DELAY,
        "From the commit in Postgres to the commit in Kafka, of the oldest row of a transaction"
    );
    describe_counter!(REFUSED, "Outbox rows that went to the dead letters, by class");
    describe_gauge!(POSITION, "How far Postgres' log has been delivered, in bytes");
    describe_gauge!(OUTBOX_AGE, "Age of the oldest row that may not have been delivered");
    describe_gauge!(HORIZON_AGE, "Time for which an open transaction has held up a relay that polls, or would");
    describe_gauge!(SLOT_LAG, "Bytes of log that Postgres keeps for the slot");
    describe_counter!(DROPPED, "Partitions of the outbox dropped after delivery");
    gauge!(ACTIVE).set(0.0);
}

pub(crate) fn active(is_active: bool) {
    gauge!(ACTIVE).set(if is_active { 1.0 } else { 0.0 });
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
pub(crate) fn delivered(rows: &[Row], now_ms: i64) {
    counter!(TRANSACTIONS).increment(1);
    if let Some(oldest) = rows.first() {
        counter!(ROWS).increment(rows.len() as u64);
        histogram!(BATCH).record(rows.len() as f64);
        histogram!(DELAY).record((now_ms - oldest.committed_at_ms).max(0) as f64 / 1_000.0);
    }
    if is_on() {
        rows.iter().for_each(|row| trace(row, now_ms));
    }
}

/// The span of a row that was delivered, `send <topic>`: from its commit in Postgres to that in Kafka, a child of what
/// the row names as its cause. The row itself keeps that cause.
fn trace(row: &Row, now_ms: i64) {
    let Some(cause) = Trace::from_headers(&row.record.headers) else { return };
    let text = |name| row.record.header(name).and_then(|value| str::from_utf8(value).ok());
    let message = Message {
        topic: &row.record.topic,
        key: row.record.key.as_deref(),
        job: text(header::JOB_ID),
        cause: Some(cause.context),
    };
    // The two clocks may differ.
    let span = Span::send(&message, row.committed_at_ms.min(now_ms));
    if let Some(class) = text(header::FAILURE_CLASS) {
        span.fail(class, text(header::FAILURE_REASON).unwrap_or_default());
    }
}

pub(crate) fn aborted() {
    counter!(ABORTED).increment(1);
}

pub(crate) fn refused(class: &'static str) {
    counter!(REFUSED, "class" => class).increment(1);
}

/// A slip whose queue has no topic is about to rest.
pub(crate) fn rests(rest: &Rest) {
    let (kind, reason) = ("queue", "missing-step");
    counter!(MISSING, "kind" => kind).increment(1);
    counter!(HOLDS, "reason" => reason).increment(1);
    if rest.event.is_some() {
        let Rest { job, flow, step, missing: what, .. } = rest;
        tracing::warn!(
            job.id = %job, flow, step, kind, what,
            "something that the step needs is missing; the job waits for it"
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
pub(crate) fn position(position: &Position) {
    gauge!(POSITION).set(position.end_lsn.0 as f64);
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
pub(crate) fn outbox_age(age_ms: i64) {
    gauge!(OUTBOX_AGE).set(age_ms as f64 / 1_000.0);
}

pub(crate) fn horizon_age(seconds: f64) {
    gauge!(HORIZON_AGE).set(seconds);
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
pub(crate) fn slot_lag(bytes: u64) {
    gauge!(SLOT_LAG).set(bytes as f64);
}

/// `status` is Postgres' `pg_replication_slots.wal_status`.
pub(crate) fn slot_wal_status(status: &str) {
    for each in SLOT_WAL_STATUSES {
        gauge!(SLOT_WAL_STATUS, "status" => each).set(if each == status { 1.0 } else { 0.0 });
    }
}

pub(crate) fn dropped(partitions: usize) {
    counter!(DROPPED).increment(partitions as u64);
}
