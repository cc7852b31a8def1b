//! `orchestrator.jobs`: the projection of every job from its events, and reading it.

use flow::deref_to_facts;
use flow::facts::JobFacts;
use std::collections::{HashMap, HashSet};

use events::time::DAY_MS;
use events::trace::TraceId;
use flow::event::JobStatus;
use flow::id::JobId;
use uuid::Uuid;

use crate::acceptances::Acceptance;
use crate::cancels::CancelWish;
use crate::columns::{signed, status_of};
use crate::history::{self, Entry};
use crate::retention::{Needed, Retired};
use crate::{Error, Pool, Role, Tx, partitions, retention, statistics, sweep};

mod list;
mod past;
mod read;

pub use crate::observed::ObservedEvent;
pub use list::{JobChoice, JobPage, ListedJob, list};
pub use past::{Past, PastBounds, past};
pub use read::get;

/// A job as its events tell it, up to a cursor.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// The partition that its events were read from.
    pub partition: i32,
    /// The job, without its history.
    pub summary: JobSummary,
    /// Its events, in order.
    pub history: Vec<Entry>,
}

/// A job as its events have left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSummary {
    pub facts: JobFacts,
    pub status: JobStatus,
    /// The offset of the last event seen.
    pub cursor: i64,
    pub steps_total: u32,
    /// The time of the last event, in milliseconds since the Unix epoch.
    pub updated_at_ms: i64,
    pub trace_id: Option<TraceId>,
}

deref_to_facts!(JobSummary);

/// A job in Postgres: at least one of the two is there.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredJob {
    /// Present from the commit that the 202 reports until its retention is over.
    pub acceptance: Option<Acceptance>,
    /// Present once the job's first event was projected.
    pub projection: Option<Projection>,
    /// Present once somebody wants the job cancelled, and that was taken in.
    pub cancel: Option<CancelWish>,
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
    let done = |of: &str| sweep::is_done(of, keep_ms, DAY_MS);
    let keep_ms = keep_ms.saturating_add(DAY_MS);
    let of_partition =
        |partition: &str, _: Uuid, _: Uuid| format!("select job from {partition} as seen where not ({})", done("seen"));
    let needed = Needed { of_partition: &of_partition, default_row_is_done: done("kept") };
    let retired = retention::retire(pool, &partitions::JOBS, keep_ms, &needed).await?;
    forget_events(pool, keep_ms).await?;
    Ok(retired)
}

/// Deletes the events of jobs that are gone.
async fn forget_events(pool: &Pool, keep_ms: i64) -> Result<(), Error> {
    let before = retention::bound(partitions::now_ms(pool).await? - keep_ms);
    loop {
        // Each job is looked up by itself: a join would read the jobs of all days.
        let deleted = sqlx::query!(
            "delete from orchestrator.job_events where ctid = any (array(
                select ctid from orchestrator.job_events as beside
                where job < $1
                  and (select jobs.job from orchestrator.jobs as jobs where jobs.job = beside.job) is null
                limit $2
             ))",
            before,
            FORGOTTEN_ROWS_MAX,
        )
        .execute(pool.raw())
        .await?;
        if deleted.rows_affected() < FORGOTTEN_ROWS_MAX.unsigned_abs() {
            return Ok(());
        }
    }
}

/// The bytes of history from which on a job's row takes no more of it: later events go to `orchestrator.job_events`.
/// Nearly all jobs stay below, with one write for all that a batch says of them; none is rewritten without end.
const ROW_HISTORY_BYTES: i32 = 4_096;

/// Rows of `orchestrator.job_events` deleted in one statement.
const FORGOTTEN_ROWS_MAX: i64 = 5_000;

/// The events of one batch about one job.
struct Update<'a> {
    last: &'a ObservedEvent,
    /// The time of the last event that tells of progress.
    at_ms: i64,
    status: JobStatus,
    trace_id: Option<TraceId>,
    history: Vec<u8>,
    /// The cursor at which the job stands still, if that is all that they tell.
    stuck_at: Option<i64>,
}

/// The batch by job, each job's events in order, jobs sorted.
fn coalesce(events: &[ObservedEvent]) -> Vec<Update<'_>> {
    let mut places = HashMap::new();
    let mut updates: Vec<Update<'_>> = Vec::new();
    for observed in events {
        let place = *places.entry(observed.event.job).or_insert(updates.len());
        if place == updates.len() {
            let (trace_id, status) = (observed.trace_id, observed.event.status);
            let stuck_at = observed.event.stuck_at();
            let at_ms = observed.event.at_ms;
            updates.push(Update { last: observed, at_ms, status, trace_id, history: Vec::new(), stuck_at });
        } else {
            updates[place].stuck_at = None;
        }
        let update = &mut updates[place];
        update.last = observed;
        // That the job stands still changes nothing. A final status is the last one.
        if observed.event.stuck_at().is_none() {
            update.at_ms = observed.event.at_ms;
            if !update.status.is_final() {
                update.status = observed.event.status;
            }
        }
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
    let stuck = stuck_since(tx, &updates).await?;
    let marks = statistics::record(tx, events).await?;
    let mark = |update: &Update<'_>| marks.get(&update.last.event.job).copied().unwrap_or_default();
    let last = || updates.iter().map(|update| &update.last.event);
    let overfull = sqlx::query_file_scalar!(
        "queries/project.sql",
        &last().map(|e| e.job.uuid()).collect::<Vec<_>>(),
        &last().map(|e| e.tenant.as_str()).collect::<Vec<_>>() as &[&str],
        &last().map(|e| e.flow.as_str()).collect::<Vec<_>>() as &[&str],
        &last().map(|e| e.version.as_str()).collect::<Vec<_>>() as &[&str],
        &last().map(|e| e.key.as_str()).collect::<Vec<_>>() as &[&str],
        &last().map(|e| e.correlation_id.as_str()).collect::<Vec<_>>() as &[&str],
        &updates.iter().map(|update| update.status.as_str()).collect::<Vec<_>>() as &[&str],
        &updates.iter().map(|update| update.last.partition).collect::<Vec<_>>(),
        &updates.iter().map(|update| update.last.cursor).collect::<Vec<_>>(),
        &last().map(|e| signed(e.steps_total)).collect::<Vec<_>>(),
        &last().map(|e| e.accepted_at_ms).collect::<Vec<_>>(),
        &updates.iter().map(|update| update.at_ms).collect::<Vec<_>>(),
        &updates.iter().map(|update| update.trace_id.map(|id| id.to_string())).collect::<Vec<_>>()
            as &[Option<String>],
        &last().map(|e| e.retry_of.map(JobId::uuid)).collect::<Vec<_>>() as &[Option<Uuid>],
        &updates.iter().map(|update| update.history.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        ROW_HISTORY_BYTES,
        &stuck as &[Option<i64>],
        &updates.iter().map(|update| mark(update).step_since_ms).collect::<Vec<_>>() as &[Option<i64>],
        &updates.iter().map(|update| mark(update).begun_ms).collect::<Vec<_>>() as &[Option<i64>],
    )
    .fetch_all(tx.raw())
    .await?;
    put_beside(tx, &updates, &overfull).await
}

/// In place of a time: the job has made progress since it was found to stand still.
const NOT_STUCK: i64 = -1;

/// Of each update that only tells that its job is stuck, since when it is, in milliseconds since the Unix epoch.
async fn stuck_since(tx: &mut Tx, updates: &[Update<'_>]) -> Result<Vec<Option<i64>>, Error> {
    let told: Vec<Uuid> =
        updates.iter().filter(|update| update.stuck_at.is_some()).map(|update| update.last.event.job.uuid()).collect();
    if told.is_empty() {
        return Ok(vec![None; updates.len()]);
    }
    let rows = sqlx::query!("select job, cursor, status from orchestrator.jobs where job = any($1)", &told)
        .fetch_all(tx.raw())
        .await?;
    let mut cursors = HashMap::new();
    for row in rows.into_iter() {
        if !status_of(&row.status)?.is_final() {
            cursors.insert(row.job, row.cursor);
        }
    }
    let since = |update: &Update<'_>| {
        let (stuck_at, event) = (update.stuck_at?, &update.last.event);
        Some(if cursors.get(&event.job.uuid()) == Some(&stuck_at) { event.at_ms } else { NOT_STUCK })
    };
    Ok(updates.iter().map(since).collect())
}

/// Stores the events of jobs whose rows take no more.
async fn put_beside(tx: &mut Tx, updates: &[Update<'_>], jobs: &[Uuid]) -> Result<(), Error> {
    if jobs.is_empty() {
        return Ok(());
    }
    let jobs: HashSet<Uuid> = jobs.iter().copied().collect();
    let beside: Vec<_> = updates.iter().filter(|update| jobs.contains(&update.last.event.job.uuid())).collect();
    sqlx::query!(
        "insert into orchestrator.job_events (job, cursor, lines)
         select * from unnest($1::uuid[], $2::bigint[], $3::bytea[])",
        &beside.iter().map(|update| update.last.event.job.uuid()).collect::<Vec<_>>(),
        &beside.iter().map(|update| update.last.cursor).collect::<Vec<_>>(),
        &beside.iter().map(|update| update.history.as_slice()).collect::<Vec<_>>() as &[&[u8]],
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}
