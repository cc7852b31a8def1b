//! `orchestrator.holds`: slips at rest. A row is a job's token, so it leaves only by becoming a row of the outbox in
//! the same transaction: whoever deletes it sends it, and nobody else can.

use events::record::Record;
use flow::id::TokenId;
use flow::slip::HoldReason;

use crate::columns::{RecordColumns, signed, unsigned};
use crate::headers::decode_headers;
use crate::{Error, Pool, Tx};

/// A token that comes to rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHold {
    /// The token of the slip inside, and the hold's identity.
    pub token: TokenId,
    pub reason: HoldReason,
    /// After how long it is released by itself, counted from now by Postgres' clock; none: by an operator only.
    pub release_after_ms: Option<u64>,
    /// The slip's record, to be sent as it is.
    pub record: Record,
    /// Of a call under way: the worker that makes it, as `instance/start`.
    pub worker: Option<String>,
    /// Of a turn: its place behind the call that it waits for, from 1.
    pub place: Option<u32>,
}

/// A token on its way from its rest to the outbox: whoever holds this must send it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct ReleasedToken {
    /// The slip's record, as it was put to rest.
    pub record: Record,
    /// Steps of the job's flow, where the projection knows the job.
    pub steps_total: Option<u32>,
}

/// The outcome of [`release_due`], and the time to call it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// Holds that were sent on.
    pub holds: u32,
    /// In how many milliseconds the next one is due (0: now); none when none waits for a time.
    pub next_due_in_ms: Option<u64>,
}

/// Puts tokens to rest as part of the caller's transaction, which also moves the offset that they came by (rule 3). One
/// that rests already stays as it is.
pub async fn insert(tx: &mut Tx, holds: &[NewHold]) -> Result<(), Error> {
    if holds.is_empty() {
        return Ok(());
    }
    let release_after = |hold: &NewHold| hold.release_after_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
    let columns: RecordColumns<'_> = holds.iter().map(|hold| &hold.record).collect();
    sqlx::query!(
        "insert into orchestrator.holds (
            job, branch, hop, reason, release_at, topic, key, value, headers, worker, place
         )
         select job, branch, hop, reason, now() + release_after_ms * interval '1 millisecond',
                topic, key, value, headers, worker, place
         from unnest(
            $1::uuid[], $2::text[], $3::integer[], $4::text[], $5::bigint[],
            $6::text[], $7::bytea[], $8::bytea[], $9::bytea[], $10::text[], $11::integer[]
         ) as hold (job, branch, hop, reason, release_after_ms, topic, key, value, headers, worker, place)
         on conflict (job, branch, hop) do nothing",
        &holds.iter().map(|hold| hold.token.job.uuid()).collect::<Vec<_>>(),
        &holds.iter().map(|hold| hold.token.branch.as_str()).collect::<Vec<_>>() as &[&str],
        &holds.iter().map(|hold| signed(hold.token.hop)).collect::<Vec<_>>(),
        &holds.iter().map(|hold| hold.reason.as_str()).collect::<Vec<_>>() as &[&str],
        &holds.iter().map(release_after).collect::<Vec<_>>() as &[Option<i64>],
        &columns.topics as &[&str],
        &columns.keys as &[Option<&[u8]>],
        &columns.values as &[Option<&[u8]>],
        &columns.headers,
        &holds.iter().map(|hold| hold.worker.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &holds.iter().map(|hold| hold.place.map(signed)).collect::<Vec<_>>() as &[Option<i32>],
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// Sends on at most `holds_max` holds whose time has come, earliest first, in one statement. Any number of callers at
/// once share the work; each hold is sent by exactly one.
pub async fn release_due(pool: &Pool, holds_max: u32) -> Result<Released, Error> {
    let row = sqlx::query_file!("queries/release_due.sql", i64::from(holds_max)).fetch_one(pool.raw()).await?;
    let holds = u32::try_from(row.released).unwrap_or(u32::MAX);
    let next_due_in_ms = if holds >= holds_max && holds > 0 { Some(0) } else { until(row.next_due_in_ms) };
    Ok(Released { holds, next_due_in_ms })
}

/// Takes those of these tokens that are parked out of their holds, as an operator has asked. Others are passed over, so
/// calling it twice takes each once. The caller's transaction must append their records to the outbox,
/// or not commit.
pub async fn take_parked(tx: &mut Tx, tokens: &[TokenId]) -> Result<Vec<ReleasedToken>, Error> {
    if tokens.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query!(
        r#"with taken as (
            delete from orchestrator.holds as hold
            using unnest($1::uuid[], $2::text[], $3::integer[]) as word (job, branch, hop)
            where hold.job = word.job and hold.branch = word.branch and hold.hop = word.hop
              and hold.reason = $4
            returning hold.job, hold.branch, hold.hop, hold.topic, hold.key, hold.value, hold.headers
         )
         select taken.topic as "topic!", taken.key as "key?", taken.value as "value?", taken.headers as "headers!",
                jobs.steps_total as "steps_total?"
         from taken left join orchestrator.jobs as jobs on jobs.job = taken.job
         order by taken.job, taken.branch, taken.hop"#,
        &tokens.iter().map(|token| token.job.uuid()).collect::<Vec<_>>(),
        &tokens.iter().map(|token| token.branch.as_str()).collect::<Vec<_>>() as &[&str],
        &tokens.iter().map(|token| signed(token.hop)).collect::<Vec<_>>(),
        HoldReason::Attention.as_str(),
    )
    .fetch_all(tx.raw())
    .await?;
    rows.into_iter()
        .map(|row| {
            let headers = decode_headers(&row.headers).map_err(|error| Error::Corrupt(error.to_string()))?;
            let record = Record { topic: row.topic, key: row.key, value: row.value, headers };
            Ok(ReleasedToken { record, steps_total: row.steps_total.map(unsigned) })
        })
        .collect()
}

/// The number of holds, by reason.
pub async fn count_by_reason(pool: &Pool) -> Result<Vec<(HoldReason, u64)>, Error> {
    let rows =
        sqlx::query!(r#"select reason, count(*) as "holds!" from orchestrator.holds group by reason order by reason"#)
            .fetch_all(pool.raw())
            .await?;
    rows.into_iter()
        .map(|row| {
            let reason = HoldReason::parse(&row.reason)
                .ok_or_else(|| Error::Corrupt(format!("hold reason `{}`", row.reason)))?;
            Ok((reason, row.holds.unsigned_abs()))
        })
        .collect()
}

/// For how long the oldest call has rested as one that is under way; none when there is none.
pub async fn oldest_running_ms(pool: &Pool) -> Result<Option<u64>, Error> {
    let age_ms = sqlx::query_scalar!(
        "select (extract(epoch from clock_timestamp() - min(held_at)) * 1000)::bigint
         from orchestrator.holds where reason = 'running'"
    )
    .fetch_one(pool.raw())
    .await?;
    Ok(until(age_ms))
}

fn until(in_ms: Option<i64>) -> Option<u64> {
    in_ms.map(|ms| u64::try_from(ms).unwrap_or(0))
}
