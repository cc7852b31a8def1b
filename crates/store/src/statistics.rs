//! `orchestrator.statistics`: how long jobs and their steps take, and how they end, by the minute.
//!
//! Written with the projection, so each event counts once. Nothing here reads jobs to count them.

use std::collections::{BTreeMap, HashMap};

use events::time::HOUR_MS;
use flow::id::JobId;
use uuid::Uuid;

use crate::observed::ObservedEvent;
use crate::{Error, Pool, Tx};

mod histogram;
mod tally;

pub use histogram::Histogram;
pub use tally::Counts;
pub(crate) use tally::Mark;

/// For so long the sums are kept, in hours.
pub const KEPT_H: u32 = 24;
const KEPT_MS: i64 = KEPT_H as i64 * HOUR_MS;
/// Rows of one minute, flow and step, at most.
const SHARDS: i32 = 64;
/// Rows that are deleted in one statement.
const FORGOTTEN_MAX: i64 = 5_000;

/// The statistics of one flow by step; those of its jobs as a whole are under an empty name.
pub type BySteps = BTreeMap<String, Counts>;

/// Adds these events up, as part of the transaction that projects them, and before it does. Returns what the projection
/// is to keep of each job.
pub(crate) async fn record(tx: &mut Tx, events: &[ObservedEvent]) -> Result<HashMap<JobId, Mark>, Error> {
    let (mut marks, now_ms) = marks(tx, events).await?;
    let sums = tally::add_up(events, &mut marks, (now_ms, KEPT_MS));
    if sums.is_empty() {
        return Ok(marks);
    }
    let shard = events.iter().map(|observed| observed.partition).min().unwrap_or_default().rem_euclid(SHARDS);
    let count = |of: fn(&Counts) -> u64| -> Vec<i32> {
        sums.values().map(|counts| i32::try_from(of(counts)).unwrap_or(i32::MAX)).collect()
    };
    sqlx::query_file!(
        "queries/add_statistics.sql",
        &sums.keys().map(|place| place.tenant).collect::<Vec<_>>() as &[&str],
        &sums.keys().map(|place| place.flow).collect::<Vec<_>>() as &[&str],
        &sums.keys().map(|place| place.step).collect::<Vec<_>>() as &[&str],
        &sums.keys().map(|place| place.minute_ms).collect::<Vec<_>>(),
        shard,
        &count(|counts| counts.accepted),
        &count(|counts| counts.succeeded),
        &count(|counts| counts.skipped),
        &count(|counts| counts.failed),
        &count(|counts| counts.cancelled),
        &sums.values().map(|counts| counts.durations.sum_ms().cast_signed()).collect::<Vec<_>>(),
        &sums.values().map(|counts| counts.durations.as_array()).collect::<Vec<_>>(),
    )
    .execute(tx.raw())
    .await?;
    Ok(marks)
}

/// How far these events' jobs are known, and the time.
async fn marks(tx: &mut Tx, events: &[ObservedEvent]) -> Result<(HashMap<JobId, Mark>, i64), Error> {
    let mut jobs: Vec<Uuid> = events.iter().map(|observed| observed.event.job.uuid()).collect();
    jobs.sort_unstable();
    jobs.dedup();
    let rows = sqlx::query_file!("queries/statistics_marks.sql", &jobs).fetch_all(tx.raw()).await?;
    let now_ms = rows.first().map_or(0, |row| row.now_ms);
    let mark = |cursor, step_since_ms, begun_ms| Mark { cursor, step_since_ms, begun_ms };
    let marks = rows.into_iter().map(|row| (JobId::new(row.job), mark(row.cursor, row.step_since_ms, row.begun_ms)));
    Ok((marks.collect(), now_ms))
}

/// The statistics of a flow since this time, in milliseconds since the Unix epoch, by whole minutes.
pub async fn since(pool: &Pool, tenant: &str, flow: &str, since_ms: i64) -> Result<BySteps, Error> {
    let rows = sqlx::query_file!("queries/statistics_since.sql", tenant, flow, since_ms).fetch_all(pool.raw()).await?;
    let mut steps = BySteps::new();
    for row in rows {
        let counts = Counts {
            accepted: row.accepted.unsigned_abs().into(),
            succeeded: row.succeeded.unsigned_abs().into(),
            skipped: row.skipped.unsigned_abs().into(),
            failed: row.failed.unsigned_abs().into(),
            cancelled: row.cancelled.unsigned_abs().into(),
            durations: histogram_of(&row.durations, row.duration_sum_ms),
        };
        steps.entry(row.step).or_default().merge(&counts);
    }
    Ok(steps)
}

/// The latest statistics of a flow by step: of each the newest `minutes_max` rows, and of those no more than are needed
/// for `ends_enough` ends. So they are of the last moments where much happens, else of the last hours.
pub async fn latest(
    pool: &Pool,
    (tenant, flow): (&str, &str),
    steps: &[String],
    (minutes_max, ends_enough): (u32, u64),
) -> Result<BySteps, Error> {
    let max = i64::from(minutes_max);
    let rows =
        sqlx::query_file!("queries/statistics_latest.sql", tenant, flow, steps, max).fetch_all(pool.raw()).await?;
    let mut latest = BySteps::new();
    for row in rows {
        let counts = Counts {
            succeeded: row.succeeded.unsigned_abs().into(),
            skipped: row.skipped.unsigned_abs().into(),
            durations: histogram_of(&row.durations, row.duration_sum_ms),
            ..Counts::default()
        };
        let known = latest.entry(row.step).or_default();
        if known.succeeded + known.skipped < ends_enough {
            known.merge(&counts);
        }
    }
    Ok(latest)
}

fn histogram_of(counts: &[i32], sum_ms: i64) -> Histogram {
    let counts: Vec<i64> = counts.iter().copied().map(i64::from).collect();
    Histogram::of(&counts, sum_ms)
}

/// Deletes what is no longer kept.
pub async fn forget(pool: &Pool) -> Result<(), Error> {
    loop {
        let deleted = sqlx::query!(
            "delete from orchestrator.statistics where ctid = any (array(
                select ctid from orchestrator.statistics
                where minute < now() - $1::bigint * interval '1 millisecond' limit $2
             ))",
            KEPT_MS,
            FORGOTTEN_MAX,
        )
        .execute(pool.raw())
        .await?;
        if deleted.rows_affected() < FORGOTTEN_MAX.unsigned_abs() {
            return Ok(());
        }
    }
}
