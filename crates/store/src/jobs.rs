//! `orchestrator.jobs`: the projection of every job from its events, and reading it.

use std::collections::HashMap;

use events::time::DAY_MS;
use events::trace::TraceId;
use flow::event::{JobEvent, JobStatus};
use flow::id::JobId;
use uuid::Uuid;

use crate::acceptances::Acceptance;
use crate::columns::signed;
use crate::history::{self, Entry};
use crate::retention::{FINAL, Needed, Retired};
use crate::{Error, Pool, Role, Tx, partitions, retention};

mod read;

pub use read::get;

/// An event as it was read from the events topic.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedEvent {
    /// The partition that it was read from.
    pub partition: i32,
    /// Its offset there: the job's cursor after it.
    pub cursor: i64,
    /// The trace that the record's `traceparent` names.
    pub trace_id: Option<TraceId>,
    /// The event.
    pub event: JobEvent,
}

/// A job as its events tell it, up to a cursor.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// The job, without its history.
    pub summary: JobSummary,
    /// Its events, in order.
    pub history: Vec<Entry>,
}

/// A job as its events have left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSummary {
    pub job: JobId,
    pub tenant: String,
    pub flow: String,
    pub version: String,
    pub key: String,
    /// The caller's correlation id, or ours.
    pub correlation_id: String,
    pub status: JobStatus,
    /// The offset of the last event seen.
    pub cursor: i64,
    pub steps_total: u32,
    /// When it was accepted, in milliseconds since the Unix epoch.
    pub accepted_at_ms: i64,
    /// When the last event happened, in milliseconds since the Unix epoch.
    pub updated_at_ms: i64,
    pub trace_id: Option<TraceId>,
    /// The job that this one retries.
    pub retry_of: Option<JobId>,
}

/// A job in Postgres: at least one of the two is there.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredJob {
    /// There from the moment of the 202, gone after its retention.
    pub acceptance: Option<Acceptance>,
    /// There soon after.
    pub projection: Option<Projection>,
}

/// Makes the partitions from today to `days_ahead` days from now. Needs the role [`Role::Orchestrator`]. Returns how
/// many were made.
pub async fn ensure_partitions(pool: &Pool, days_ahead: u32) -> Result<u32, Error> {
    debug_assert_eq!(pool.role(), Role::Orchestrator, "only the owner makes partitions");
    let now_ms = partitions::now_ms(pool).await?;
    partitions::ensure(pool, &partitions::JOBS, now_ms, days_ahead).await
}

/// Drops the projections of jobs that ended more than `keep_ms` and a day ago, by whole days: the day is for the
/// acceptances, which go first. A job that has not ended stays. Needs the role [`Role::Orchestrator`].
pub async fn retire(pool: &Pool, keep_ms: i64) -> Result<Retired, Error> {
    debug_assert_eq!(pool.role(), Role::Orchestrator, "only the owner drops partitions");
    let keep_ms = keep_ms.saturating_add(DAY_MS);
    let done = format!("status in {FINAL} and updated_at < now() - {keep_ms} * interval '1 millisecond'");
    let of_partition = |partition: &str, _: Uuid, _: Uuid| format!("select job from {partition} where not ({done})");
    let needed = Needed { of_partition: &of_partition, default_row_is_done: done.clone() };
    retention::retire(pool, &partitions::JOBS, keep_ms, &needed).await
}

/// Everything that one batch says about one job.
struct Update<'a> {
    last: &'a ObservedEvent,
    trace_id: Option<TraceId>,
    history: Vec<u8>,
}

/// The batch by job, each job's events in order, jobs sorted.
fn coalesce(events: &[ObservedEvent]) -> Vec<Update<'_>> {
    let mut places = HashMap::new();
    let mut updates: Vec<Update<'_>> = Vec::new();
    for observed in events {
        let place = *places.entry(observed.event.job).or_insert(updates.len());
        if place == updates.len() {
            updates.push(Update { last: observed, trace_id: observed.trace_id, history: Vec::new() });
        }
        let update = &mut updates[place];
        update.last = observed;
        update.trace_id = update.trace_id.or(observed.trace_id);
        history::write(&mut update.history, observed.cursor, &observed.event);
    }
    updates.sort_by_key(|update| update.last.event.job);
    updates
}

/// Brings the projection up to these events, which must be in the order of their partitions: one write per job, however
/// many of its events are in the batch. A job never goes back: an update whose cursor is not ahead writes nothing.
pub async fn project(tx: &mut Tx, events: &[ObservedEvent]) -> Result<(), Error> {
    let updates = coalesce(events);
    if updates.is_empty() {
        return Ok(());
    }
    let last = || updates.iter().map(|update| &update.last.event);
    sqlx::query_file!(
        "queries/project.sql",
        &last().map(|e| e.job.uuid()).collect::<Vec<_>>(),
        &last().map(|e| e.tenant.as_str()).collect::<Vec<_>>() as &[&str],
        &last().map(|e| e.flow.as_str()).collect::<Vec<_>>() as &[&str],
        &last().map(|e| e.version.as_str()).collect::<Vec<_>>() as &[&str],
        &last().map(|e| e.key.as_str()).collect::<Vec<_>>() as &[&str],
        &last().map(|e| e.correlation_id.as_str()).collect::<Vec<_>>() as &[&str],
        &last().map(|e| e.status.as_str()).collect::<Vec<_>>() as &[&str],
        &updates.iter().map(|update| update.last.partition).collect::<Vec<_>>(),
        &updates.iter().map(|update| update.last.cursor).collect::<Vec<_>>(),
        &last().map(|e| signed(e.steps_total)).collect::<Vec<_>>(),
        &last().map(|e| e.accepted_at_ms).collect::<Vec<_>>(),
        &last().map(|e| e.at_ms).collect::<Vec<_>>(),
        &updates.iter().map(|update| update.trace_id.map(|id| id.to_string())).collect::<Vec<_>>()
            as &[Option<String>],
        &last().map(|e| e.retry_of.map(JobId::uuid)).collect::<Vec<_>>() as &[Option<Uuid>],
        &updates.iter().map(|update| update.history.as_slice()).collect::<Vec<_>>() as &[&[u8]],
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}
