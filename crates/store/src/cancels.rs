//! `orchestrator.cancels`: the jobs that somebody wants cancelled. A cancel is open until its job has ended.
//!
//! A cancel and the holds of its job that it ends come by one partition, so whichever comes second finds the other.

use std::time::Duration;

use events::cancel::Cancel;
use events::record::Record;
use flow::id::{JobId, TokenId};
use flow::slip::HoldReason;

use crate::columns::{signed, unsigned, uuids};
use crate::{Error, Pool, Tx};
use events::headers::Headers;

/// Rows that one statement of the upkeep changes.
const ROWS_MAX: i64 = 5_000;

/// The reasons of holds that no cancel ends: a call under way ends by itself, and the others go on in the order of
/// their lane.
const NOT_ENDED: [HoldReason; 4] = [HoldReason::Running, HoldReason::Turn, HoldReason::Room, HoldReason::Unread];

/// A cancel as the status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelWish {
    /// The person or system that asked.
    pub requested_by: String,
    /// The reason, in their words.
    pub reason: Option<String>,
    /// The time of the request, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// A token at rest whose job is to be cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resting {
    pub token: TokenId,
    /// The slip's record, as it was put to rest.
    pub record: Record,
}

/// Notes cancels as part of the caller's transaction. The first one of a job counts.
pub async fn insert(tx: &mut Tx, cancels: &[Cancel]) -> Result<(), Error> {
    if cancels.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into orchestrator.cancels (job, tenant, requested_by, reason, requested_at)
         select job, tenant, requested_by, reason, to_timestamp(at_ms / 1000.0)
         from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[])
              as cancel (job, tenant, requested_by, reason, at_ms)
         on conflict (job) do nothing",
        &cancels.iter().map(|cancel| cancel.job.uuid()).collect::<Vec<_>>(),
        &cancels.iter().map(|cancel| cancel.tenant.as_str()).collect::<Vec<_>>() as &[&str],
        &cancels.iter().map(|cancel| cancel.requested_by.as_str()).collect::<Vec<_>>() as &[&str],
        &cancels.iter().map(|cancel| cancel.reason.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &cancels.iter().map(|cancel| cancel.at_ms).collect::<Vec<_>>(),
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// The tokens of those of these jobs that have an open cancel, if they rest in a way that a cancel ends. Locks their
/// holds until the transaction ends.
pub async fn resting(tx: &mut Tx, jobs: &[JobId]) -> Result<Vec<Resting>, Error> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let not_ended = NOT_ENDED.each_ref().map(HoldReason::as_str);
    let rows = sqlx::query!(
        "select job, branch, hop, topic, key, value, headers
         from orchestrator.holds as hold
         where job = any($1) and reason <> all($2)
           and (select cancel.ended_at is null from orchestrator.cancels as cancel where cancel.job = hold.job)
         order by job, branch, hop
         for update of hold",
        &uuids(jobs),
        &not_ended as &[&str],
    )
    .fetch_all(tx.raw())
    .await?;
    rows.into_iter()
        .map(|row| {
            let headers = Headers::read(row.headers).map_err(|error| Error::Corrupt(error.to_string()))?;
            let token = TokenId { job: JobId::new(row.job), branch: row.branch, hop: unsigned(row.hop) };
            Ok(Resting { token, record: Record { topic: row.topic, key: row.key, value: row.value, headers } })
        })
        .collect()
}

/// Takes these tokens out of their holds. The caller's transaction must append their records to the outbox, or not
/// commit.
pub async fn take(tx: &mut Tx, tokens: &[&TokenId]) -> Result<(), Error> {
    if tokens.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "delete from orchestrator.holds as hold
         using unnest($1::uuid[], $2::text[], $3::integer[]) as taken (job, branch, hop)
         where hold.job = taken.job and hold.branch = taken.branch and hold.hop = taken.hop",
        &tokens.iter().map(|token| token.job.uuid()).collect::<Vec<_>>(),
        &tokens.iter().map(|token| token.branch.as_str()).collect::<Vec<_>>() as &[&str],
        &tokens.iter().map(|token| signed(token.hop)).collect::<Vec<_>>(),
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// Closes the open cancels of those of these jobs that have ended, as far as the projection knows. Returns them: the
/// caller's transaction must take back their records.
pub async fn end(tx: &mut Tx, jobs: &[JobId]) -> Result<Vec<JobId>, Error> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let ended = sqlx::query_scalar!(
        "update orchestrator.cancels as cancel
         set ended_at = now()
         where ended_at is null and job = any($1)
           and (select jobs.status from orchestrator.jobs as jobs where jobs.job = cancel.job)
               in ('succeeded', 'failed', 'cancelled')
         returning job",
        &uuids(jobs),
    )
    .fetch_all(tx.raw())
    .await?;
    Ok(ended.into_iter().map(JobId::new).collect())
}

/// Some jobs with an open cancel, after this one in the order of ids. For the upkeep: a job may have ended before its
/// cancel was noted.
pub async fn open_after(pool: &Pool, after: Option<JobId>) -> Result<Vec<JobId>, Error> {
    let open = sqlx::query_scalar!(
        "select job from orchestrator.cancels
         where ended_at is null and job > coalesce($1, '00000000-0000-0000-0000-000000000000'::uuid)
         order by job limit $2",
        after.map(JobId::uuid),
        ROWS_MAX,
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(open.into_iter().map(JobId::new).collect())
}

/// Deletes some of the cancels that were closed before that time ago, of jobs that are gone. Returns their number:
/// while it is not 0, there may be more.
pub async fn retire(pool: &Pool, older_than: Duration) -> Result<u64, Error> {
    let done = sqlx::query!(
        "delete from orchestrator.cancels
         where job = any (array(
            select cancel.job from orchestrator.cancels as cancel
            where ended_at < now() - $1::double precision * interval '1 second'
              and (select jobs.job from orchestrator.jobs as jobs where jobs.job = cancel.job) is null
            order by ended_at limit $2
         ))",
        older_than.as_secs_f64(),
        ROWS_MAX,
    )
    .execute(pool.raw())
    .await?;
    Ok(done.rows_affected())
}
