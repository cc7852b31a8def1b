//! `orchestrator.holds`: slips at rest. A row is a job's token. The transaction that deletes it also puts its slip, or
//! the records of its outcome, into the outbox.

use events::record::Record;
use flow::id::{JobId, TokenId};
use flow::slip::HoldReason;

use crate::columns::{RecordColumns, signed, unsigned};
use crate::{Error, Pool, Tx};
use events::headers::Headers;

/// Holds of one reason that are counted one by one.
const COUNTED_MAX: i64 = 100_000;

/// A token that comes to rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHold {
    /// The token of the slip inside, and the hold's identity.
    pub token: TokenId,
    pub reason: HoldReason,
    /// The time after which it is released by itself, counted from now by Postgres' clock; none: by an operator only.
    pub release_after_ms: Option<u64>,
    /// The slip's record, to be sent as it is.
    pub record: Record,
    /// The worker that makes the call, as `instance/start`, if a call is under way.
    pub worker: Option<String>,
    /// The place behind the call that it waits for, from 1, if it is a turn.
    pub place: Option<u32>,
    /// The name of the signal that it waits for.
    pub signal: Option<String>,
    /// The downstream whose breaker or limit it waits for.
    pub downstream: Option<String>,
    /// The step that its slip is at, where the slip was read.
    pub step: Option<String>,
}

impl NewHold {
    /// A hold without an end of its own.
    pub const fn new(token: TokenId, reason: HoldReason, record: Record) -> Self {
        Self {
            token,
            reason,
            release_after_ms: None,
            record,
            worker: None,
            place: None,
            signal: None,
            downstream: None,
            step: None,
        }
    }
}

/// A token on its way from its rest to the outbox: the caller must send it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct ReleasedToken {
    /// The token, with the hop at which it rested.
    pub token: TokenId,
    /// The reason for which it rested.
    pub reason: HoldReason,
    /// The slip's record, as it was put to rest.
    pub record: Record,
    /// The count of steps of the job's flow, if the projection knows the job.
    pub steps_total: Option<u32>,
}

/// The outcome of [`crate::lanes::release_due`], and the time to call it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// Holds that were sent on.
    pub holds: u32,
    /// The milliseconds until the next hold is due (0: now); none if no hold waits for a time.
    pub next_due_in_ms: Option<u64>,
}

/// Puts tokens to rest as part of the caller's transaction, which also moves the offset of their records (rule 3). A
/// token that rests already stays as it is.
pub async fn insert(tx: &mut Tx, holds: &[NewHold]) -> Result<(), Error> {
    if holds.is_empty() {
        return Ok(());
    }
    let release_after = |hold: &NewHold| hold.release_after_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
    let columns: RecordColumns<'_> = holds.iter().map(|hold| &hold.record).collect();
    sqlx::query!(
        "insert into orchestrator.holds (
            job, branch, hop, reason, release_at, topic, key, value, headers, worker, place, signal,
            downstream, step
         )
         select job, branch, hop, reason, now() + release_after_ms * interval '1 millisecond',
                topic, key, value, headers, worker, place, signal, downstream, step
         from unnest(
            $1::uuid[], $2::text[], $3::integer[], $4::text[], $5::bigint[],
            $6::text[], $7::bytea[], $8::bytea[], $9::bytea[], $10::text[], $11::integer[],
            $12::text[], $13::text[], $14::text[]
         ) as hold (job, branch, hop, reason, release_after_ms, topic, key, value, headers, worker, place, signal,
            downstream, step)
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
        &holds.iter().map(|hold| hold.signal.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &holds.iter().map(|hold| hold.downstream.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &holds.iter().map(|hold| hold.step.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// Sends on at most `holds_max` holds that hold no lane and whose time has come, earliest first, in one statement.
/// Returns whether there are due ones that hold their lanes.
pub(crate) async fn release_alone(pool: &Pool, holds_max: u32) -> Result<(Released, bool), Error> {
    let row = sqlx::query_file!("queries/release_due.sql", i64::from(holds_max)).fetch_one(pool.raw()).await?;
    let holds = u32::try_from(row.released).unwrap_or(u32::MAX);
    Ok((Released { holds, next_due_in_ms: until(row.next_due_in_ms) }, row.lanes_due))
}

/// Takes those of these tokens out of their holds that are parked or wait for a time, as an operator has asked. Other
/// tokens are passed over, so two calls take each token once. The caller's transaction must append their records to the
/// outbox, or not commit.
///
/// A token that looks again for what is missing rests at ever later hops, and not every rest is told of. It is taken at
/// the hop that is asked for and at any later one: at worst it looks once more.
pub async fn take_resting(tx: &mut Tx, tokens: &[TokenId]) -> Result<Vec<ReleasedToken>, Error> {
    if tokens.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query!(
        r#"with taken as (
            delete from orchestrator.holds as hold
            using unnest($1::uuid[], $2::text[], $3::integer[]) as word (job, branch, hop)
            where hold.job = word.job and hold.branch = word.branch
              and (hold.hop = word.hop and hold.reason = any($4) or hold.hop >= word.hop and hold.reason = $5)
            returning hold.job, hold.branch, hold.hop, hold.reason, hold.topic, hold.key, hold.value, hold.headers
         )
         select taken.job as "job!", taken.branch as "branch!", taken.hop as "hop!", taken.reason as "reason!",
                 taken.topic as "topic!", taken.key as "key?", taken.value as "value?",
                taken.headers as "headers!", jobs.steps_total as "steps_total?"
         from taken left join orchestrator.jobs as jobs on jobs.job = taken.job
         order by taken.job, taken.branch, taken.hop"#,
        &tokens.iter().map(|token| token.job.uuid()).collect::<Vec<_>>(),
        &tokens.iter().map(|token| token.branch.as_str()).collect::<Vec<_>>() as &[&str],
        &tokens.iter().map(|token| signed(token.hop)).collect::<Vec<_>>(),
        &[HoldReason::Attention.as_str(), HoldReason::Backoff.as_str()] as &[&str],
        HoldReason::MissingStep.as_str(),
    )
    .fetch_all(tx.raw())
    .await?;
    rows.into_iter()
        .map(|row| {
            let headers = Headers::read(row.headers).map_err(|error| Error::Corrupt(error.to_string()))?;
            let record = Record { topic: row.topic, key: row.key, value: row.value, headers };
            let reason = HoldReason::read(&row.reason).ok_or_else(|| Error::Corrupt(row.reason))?;
            let token = TokenId { job: JobId::new(row.job), branch: row.branch, hop: unsigned(row.hop) };
            Ok(ReleasedToken { token, reason, record, steps_total: row.steps_total.map(unsigned) })
        })
        .collect()
}

/// The value of the record of a parked token; none where it does not rest at this hop, or is not parked.
pub async fn parked_slip(pool: &Pool, token: &TokenId) -> Result<Option<Vec<u8>>, Error> {
    let value = sqlx::query_scalar!(
        "select value from orchestrator.holds
         where job = $1 and branch = $2 and hop = $3 and reason = 'attention'",
        token.job.uuid(),
        token.branch,
        signed(token.hop),
    )
    .fetch_optional(pool.raw())
    .await?;
    Ok(value.flatten())
}

/// [`parked_slip`], of a token that nobody else takes before the caller's transaction ends.
pub async fn lock_parked_slip(tx: &mut Tx, token: &TokenId) -> Result<Option<Vec<u8>>, Error> {
    let value = sqlx::query_scalar!(
        "select value from orchestrator.holds
         where job = $1 and branch = $2 and hop = $3 and reason = 'attention'
         for update",
        token.job.uuid(),
        token.branch,
        signed(token.hop),
    )
    .fetch_optional(tx.raw())
    .await?;
    Ok(value.flatten())
}

/// The number of holds, by reason. More than `COUNTED_MAX` are not counted but estimated by Postgres' statistics, so
/// that the answer does not take longer the more there are. Reasons of a later version are left out.
pub async fn count_by_reason(pool: &Pool) -> Result<Vec<(HoldReason, u64)>, Error> {
    let reasons = HoldReason::ALL;
    let words = reasons.each_ref().map(HoldReason::as_str);
    let rows = sqlx::query!(
        r#"select counted.holds as "holds!", (
                select (pg_class.reltuples * common.part)::bigint
                from pg_class, pg_stats,
                     unnest(most_common_vals::text::text[], most_common_freqs) as common (word, part)
                where pg_class.oid = 'orchestrator.holds'::regclass
                  and schemaname = 'orchestrator' and tablename = 'holds' and attname = 'reason'
                  and common.word = asked.reason
            ) as "estimated?"
           from unnest($1::text[]) with ordinality as asked (reason, ordinal)
           cross join lateral (
                select count(*) as holds
                from (select from orchestrator.holds where holds.reason = asked.reason limit $2) as counted
           ) as counted
           order by ordinal"#,
        &words as &[&str],
        COUNTED_MAX,
    )
    .fetch_all(pool.raw())
    .await?;
    let holds = rows.into_iter().map(|row| match row.holds {
        COUNTED_MAX => COUNTED_MAX.max(row.estimated.unwrap_or_default()),
        counted => counted,
    });
    Ok(reasons.iter().cloned().zip(holds.map(i64::unsigned_abs)).filter(|(_, holds)| *holds > 0).collect())
}

/// The age in milliseconds of the oldest hold of a call under way; none if there is none.
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
