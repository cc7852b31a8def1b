//! `orchestrator.watched` and `orchestrator.watch`: the search for jobs that stand still.
//!
//! Each job is walked over once, some time after its acceptance, in the order of ids; one that has not ended then is
//! watched until it has. So a job that ends soon costs one read, by the primary key, and no write.

use flow::event::{JobEvent, JobStatus};
use flow::facts::JobFacts;
use flow::id::JobId;

use crate::columns::{status_of, unsigned, uuids};
use crate::{Error, Pool, Tx, history, partitions, retention};

/// Stuck jobs that are counted one by one.
const COUNTED_MAX: i64 = 100_000;

/// The limits of one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookMax {
    /// Jobs that are walked over, and watched jobs that are looked at.
    pub jobs: u32,
    /// The time without progress after which a job is stuck, in milliseconds.
    pub stuck_after_ms: u64,
    /// The time until the next look at a job that does not rest, in milliseconds.
    pub again_after_ms: u64,
}

/// The outcome of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// True if more is due at once.
    pub has_more: bool,
    /// True if a job has stood still for so long that it may be stuck.
    pub is_ripe: bool,
}

/// A job that stands still.
#[derive(Debug, Clone, PartialEq)]
pub struct StuckJob {
    pub facts: JobFacts,
    pub status: JobStatus,
    /// The cursor of its last event.
    pub cursor: i64,
    pub last: JobEvent,
}

/// The state of the last echo: a record that goes through the outbox and is heard of by its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Echo {
    /// When it was sent, in milliseconds since the Unix epoch, by Postgres' clock.
    pub sent_at_ms: Option<i64>,
    pub is_heard: bool,
}

/// Postgres' time, in milliseconds since the Unix epoch.
pub async fn now_ms(pool: &Pool) -> Result<i64, Error> {
    partitions::now_ms(pool).await
}

/// Watches these jobs from now on, as part of the caller's transaction: those that the walk may have passed.
pub async fn add(tx: &mut Tx, jobs: &[JobId]) -> Result<(), Error> {
    if jobs.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into orchestrator.watched (job) select * from unnest($1::uuid[]) on conflict (job) do nothing",
        &uuids(jobs),
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// Tokens of these jobs have come to rest, as part of the caller's transaction: the time for which they stand still
/// begins anew, even if they go on before the next look.
pub async fn rest(tx: &mut Tx, jobs: &[JobId]) -> Result<(), Error> {
    if jobs.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update orchestrator.watched set since = null where job = any($1) and since is not null",
        &uuids(jobs),
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// Walks on over jobs that were accepted `stuck_after_ms` ago or earlier, and looks at the watched ones that are due.
pub async fn look(pool: &Pool, max: LookMax) -> Result<Look, Error> {
    let ms = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let (jobs_max, stuck_after_ms) = (i64::from(max.jobs), ms(max.stuck_after_ms));
    let below = retention::bound(now_ms(pool).await?.saturating_sub(stuck_after_ms));
    let walked = sqlx::query_file_scalar!("queries/watch_new.sql", below, jobs_max).fetch_one(pool.raw()).await?;
    let looked =
        sqlx::query_file_scalar!("queries/look_at_watched.sql", jobs_max, stuck_after_ms, ms(max.again_after_ms))
            .fetch_one(pool.raw())
            .await?;
    let is_ripe = sqlx::query_scalar!(
        r#"select exists (
            select from orchestrator.watched
            where since <= now() - $1::bigint * interval '1 millisecond' and cursor <> announced
        ) as "ripe!""#,
        stuck_after_ms,
    )
    .fetch_one(pool.raw())
    .await?;
    Ok(Look { has_more: walked >= jobs_max || looked >= jobs_max, is_ripe })
}

/// Takes the jobs that have stood still since that time or longer, `jobs_max` at most, as part of the caller's
/// transaction, which must announce them.
pub async fn take_stuck(tx: &mut Tx, since_ms: i64, jobs_max: u32) -> Result<Vec<StuckJob>, Error> {
    let rows =
        sqlx::query_file!("queries/announce_stuck.sql", since_ms, i64::from(jobs_max)).fetch_all(tx.raw()).await?;
    let mut stuck = Vec::with_capacity(rows.len());
    for row in rows {
        let facts = JobFacts {
            job: JobId::new(row.job),
            tenant: row.tenant,
            flow: row.flow,
            version: row.version,
            key: row.key,
            correlation_id: row.correlation_id,
            accepted_at_ms: row.accepted_at_ms,
            retry_of: row.retry_of.map(JobId::new),
        };
        let entries = history::read(&row.lines, &facts, unsigned(row.steps_total))?;
        if let Some(last) = entries.into_iter().next_back() {
            stuck.push(StuckJob { status: status_of(&row.status)?, cursor: row.cursor, last: last.event, facts });
        }
    }
    Ok(stuck)
}

/// Notes that this echo is sent, as part of the caller's transaction, which must send it.
pub async fn send_echo(tx: &mut Tx, echo: JobId) -> Result<(), Error> {
    sqlx::query!("update orchestrator.watch set echo = $1, echo_sent_at = now(), echo_heard_at = null", echo.uuid())
        .execute(tx.raw())
        .await?;
    Ok(())
}

/// Notes that these records were read, as part of the caller's transaction: the last echo may be one of them.
pub async fn hear(tx: &mut Tx, echoes: &[JobId]) -> Result<(), Error> {
    if echoes.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update orchestrator.watch set echo_heard_at = now() where echo = any($1) and echo_heard_at is null",
        &uuids(echoes),
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// The last echo.
pub async fn echo(pool: &Pool) -> Result<Echo, Error> {
    let row = sqlx::query!(
        r#"select (extract(epoch from echo_sent_at) * 1000)::bigint as "sent_at_ms?",
                  echo_heard_at is not null as "is_heard!"
           from orchestrator.watch"#
    )
    .fetch_optional(pool.raw())
    .await?;
    Ok(row.map_or_else(Echo::default, |row| Echo { sent_at_ms: row.sent_at_ms, is_heard: row.is_heard }))
}

/// The number of jobs that are stuck, at most 100,000.
pub async fn count_stuck(pool: &Pool) -> Result<u64, Error> {
    let stuck = sqlx::query_scalar!(
        r#"select count(*) as "stuck!" from (
            select from orchestrator.jobs where stuck_since is not null limit $1
        ) as counted"#,
        COUNTED_MAX,
    )
    .fetch_one(pool.raw())
    .await?;
    Ok(stuck.unsigned_abs())
}
