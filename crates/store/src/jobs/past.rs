//! A page of a job's past, however long that is.

use flow::id::JobId;

use super::JobSummary;
use super::read::ProjectedRow;
use crate::history::{self, Entry};
use crate::{Error, Pool};

/// The most that is read of a past at once.
#[derive(Debug, Clone, Copy)]
pub struct PastBounds {
    pub events: usize,
    /// Of events as they are stored, but for the last batch in which they were.
    pub bytes: usize,
}

/// The events of a job behind a cursor, up to some bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    /// The partition that the job's events were read from.
    pub partition: i32,
    /// The job, as all of its events have left it.
    pub summary: JobSummary,
    /// In order.
    pub events: Vec<Entry>,
    /// True if none is stored behind them.
    pub is_last: bool,
}

/// A page of the past of the tenant's job; none if no event of it was projected, or it is another tenant's.
pub async fn past(
    pool: &Pool,
    tenant: &str,
    job: JobId,
    after: i64,
    bounds: PastBounds,
) -> Result<Option<Past>, Error> {
    let bound = |most: usize| i64::try_from(most).unwrap_or(i64::MAX);
    let query = sqlx::query_file!(
        "queries/get_past.sql",
        job.uuid(),
        tenant,
        after,
        bound(bounds.events),
        bound(bounds.bytes),
    );
    let Some(row) = query.fetch_optional(pool.raw()).await? else { return Ok(None) };
    let summary = JobSummary::try_from(ProjectedRow {
        job: row.job,
        tenant: row.tenant,
        flow: row.flow,
        version: row.version,
        key: row.key,
        correlation_id: row.correlation_id,
        status: row.status,
        cursor: row.cursor,
        steps_total: row.steps_total,
        accepted_at_ms: row.accepted_at_ms,
        updated_at_ms: row.updated_at_ms,
        trace_id: row.trace_id,
        retry_of: row.retry_of,
    })?;
    let mut events = history::read(&row.history, &summary.facts, summary.steps_total)?;
    // A batch of events lies in one row, and the cursor may be in the midst of it.
    events.retain(|entry| entry.cursor > after);
    events.truncate(bounds.events);
    let is_last = events.last().is_none_or(|last| last.cursor >= summary.cursor);
    Ok(Some(Past { partition: row.cursor_partition, summary, events, is_last }))
}
