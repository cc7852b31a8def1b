//! `orchestrator.workers`: the workers that make long calls, their signs of life, and their loss.
//!
//! Signs of life and questions of a worker come by one partition of `waits`, in order: a reader of a question has read
//! every sign of life before it. So only a question that was read counts as silence. Time alone never does, and an
//! outage of Kafka, Postgres or this service takes no call away from a worker.

use std::collections::{BTreeMap, BTreeSet};

use events::lane::{lost_worker_record, lost_worker_tombstone};
use events::record::Record;
use events::topic::Topics;
use events::wait::Question;

use crate::columns::{signed, unsigned};
use crate::lanes::{ReleaseMax, has_calls, release};
use crate::{Error, Pool, Tx, outbox};

/// A worker that is silent through this count of questions is lost.
const ROUNDS: u32 = 2;
/// The count of leases after which a question that was not read is asked again: a restore of Kafka may have lost it.
const LEASES_PER_QUESTION_MAX: u32 = 20;
/// The pause before the next attempt for a worker whose calls are all locked by others.
const LOCKED_PAUSE_MS: u32 = 50;

/// Signs of life and questions of a batch, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct News {
    /// By worker: its last sign of life, if there was one, and the questions after it.
    workers: BTreeMap<String, Heard>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Heard {
    /// The lease of the last sign of life.
    lease_ms: Option<u64>,
    questions: Vec<(u32, i64)>,
}

impl News {
    /// Adds a sign of life.
    pub fn alive(&mut self, worker: &str, lease_ms: u64) {
        let heard = Heard { lease_ms: Some(lease_ms), questions: Vec::new() };
        self.workers.insert(worker.to_owned(), heard);
    }

    /// Adds a question.
    pub fn question(&mut self, question: &Question) {
        let heard = self.workers.entry(question.worker.clone()).or_default();
        heard.questions.push((question.round, question.at_ms));
    }
}

/// The reason for which a worker's calls are sent to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostReason {
    /// It did not answer.
    Silent,
    /// The same instance has started anew.
    Restarted,
}

impl LostReason {
    /// The word used in Postgres and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Restarted => "restarted",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Silent, Self::Restarted].into_iter().find(|reason| reason.as_str() == text)
    }
}

/// Makes the records that tell a worker that it was lost.
#[derive(Debug, Clone, Copy)]
pub struct Notice<'a> {
    /// The names of the topics.
    pub topics: &'a Topics,
    /// The time for which the record is kept, in milliseconds. Then it is deleted.
    pub kept_ms: u64,
}

impl Notice<'_> {
    fn tell(&self, worker: &str) -> Record {
        lost_worker_record(self.topics, worker)
    }

    fn take_back(&self, worker: &str) -> Record {
        lost_worker_tombstone(self.topics, worker)
    }
}

/// The outcome of [`release_lost`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The worker.
    pub worker: String,
    /// The reason of the loss.
    pub reason: LostReason,
    /// The count of its calls that were sent on by this call.
    pub calls: u32,
    /// The count of all its calls, present once none is left. 0 if it had none.
    pub finished: Option<u32>,
}

/// Takes news in, as part of the caller's transaction, which also moves the offsets of their records (rule 3). Returns
/// the count of workers for which [`release_lost`] has work now.
pub async fn take_in(tx: &mut Tx, news: &News) -> Result<u64, Error> {
    if news.workers.is_empty() {
        return Ok(0);
    }
    lock(tx, news).await?;
    let restarted = take_in_signs(tx, news).await?;
    Ok(restarted + take_in_questions(tx, news).await?)
}

/// Locks all rows that are to change, in one order, so that two callers never deadlock.
async fn lock(tx: &mut Tx, news: &News) -> Result<(), Error> {
    let instances: BTreeSet<&str> = news.workers.keys().map(|worker| instance_of(worker)).collect();
    sqlx::query!(
        "select worker from orchestrator.workers where instance = any($1) order by worker for update",
        &instances.into_iter().collect::<Vec<_>>() as &[&str],
    )
    .fetch_all(tx.raw())
    .await?;
    Ok(())
}

/// Applies signs of life. A sign of a later start of an instance makes its earlier starts lost; starts are in the order
/// of their texts. A sign of an earlier start makes no other start lost: its own lease ends like any other.
async fn take_in_signs(tx: &mut Tx, news: &News) -> Result<u64, Error> {
    let signs: Vec<(&str, i64)> = news
        .workers
        .iter()
        .filter_map(|(worker, heard)| Some((worker.as_str(), i64::try_from(heard.lease_ms?).unwrap_or(i64::MAX))))
        .collect();
    if signs.is_empty() {
        return Ok(0);
    }
    let workers: Vec<&str> = signs.iter().map(|(worker, _)| *worker).collect();
    let instances: Vec<&str> = signs.iter().map(|(worker, _)| instance_of(worker)).collect();
    sqlx::query!(
        "insert into orchestrator.workers as known (worker, instance, lease_ms, due_at)
         select worker, instance, lease_ms, now() + lease_ms * interval '0.5 milliseconds'
         from unnest($1::text[], $2::text[], $3::bigint[]) as sign (worker, instance, lease_ms)
         order by worker
         on conflict (worker) do update set
            lease_ms = excluded.lease_ms, alive_at = now(), round = 0, question_ms = null, due_at = excluded.due_at
         where known.lost_reason is null",
        &workers as &[&str],
        &instances as &[&str],
        &signs.iter().map(|(_, lease_ms)| *lease_ms).collect::<Vec<_>>(),
    )
    .execute(tx.raw())
    .await?;
    // A call may have come with the sign, after the worker's other calls were sent on.
    let lost_before = sqlx::query!(
        "update orchestrator.workers set due_at = now() where worker = any($1) and lost_reason is not null",
        &workers as &[&str],
    )
    .execute(tx.raw())
    .await?;
    let lost = sqlx::query!(
        r#"update orchestrator.workers as earlier set lost_reason = $2, due_at = now()
           from unnest($1::text[], $3::text[]) as later (worker, instance)
           where earlier.instance = later.instance and earlier.worker collate "C" < later.worker collate "C"
             and earlier.lost_reason is null"#,
        &workers as &[&str],
        LostReason::Restarted.as_str(),
        &instances as &[&str],
    )
    .execute(tx.raw())
    .await?;
    Ok(lost.rows_affected() + lost_before.rows_affected())
}

async fn take_in_questions(tx: &mut Tx, news: &News) -> Result<u64, Error> {
    let questions: Vec<(&str, u32, i64)> = news
        .workers
        .iter()
        .flat_map(|(worker, heard)| heard.questions.iter().map(|(round, at_ms)| (worker.as_str(), *round, *at_ms)))
        .collect();
    if questions.is_empty() {
        return Ok(0);
    }
    let rows = sqlx::query_scalar!(
        r#"update orchestrator.workers as asked set
              question_ms = null,
              due_at = case when asked.round >= $5 then now()
                 else now() + asked.lease_ms * interval '0.5 milliseconds' end,
              lost_reason = case when asked.round >= $5 then $4 end
           from unnest($1::text[], $2::integer[], $3::bigint[]) as question (worker, round, question_ms)
           where asked.worker = question.worker and asked.round = question.round
             and asked.question_ms = question.question_ms and asked.lost_reason is null
           returning asked.lost_reason is not null as "lost!""#,
        &questions.iter().map(|(worker, ..)| *worker).collect::<Vec<_>>() as &[&str],
        &questions.iter().map(|(_, round, _)| signed(*round)).collect::<Vec<_>>(),
        &questions.iter().map(|(.., at_ms)| *at_ms).collect::<Vec<_>>(),
        LostReason::Silent.as_str(),
        signed(ROUNDS),
    )
    .fetch_all(tx.raw())
    .await?;
    Ok(rows.into_iter().filter(|lost| *lost).count() as u64)
}

/// The milliseconds until a worker is due (0: now); none if there is no worker.
pub async fn next_due_ms(pool: &Pool) -> Result<Option<u64>, Error> {
    let in_ms = sqlx::query_scalar!(
        "select ceil(extract(epoch from min(due_at) - clock_timestamp()) * 1000)::bigint from orchestrator.workers"
    )
    .fetch_one(pool.raw())
    .await?;
    Ok(in_ms.map(|ms| u64::try_from(ms).unwrap_or(0)))
}

/// The questions to workers that were silent for too long and have calls under way, as part of the caller's
/// transaction, which must append them to the outbox. A silent worker without calls is forgotten. At most `workers_max`
/// of each kind; each worker is asked by one caller.
pub async fn ask_silent(tx: &mut Tx, workers_max: u32) -> Result<Vec<Question>, Error> {
    sqlx::query!(
        "delete from orchestrator.workers where worker in (
            select worker from orchestrator.workers as silent
            where due_at <= now() and lost_reason is null and question_ms is null and not exists (
               select from orchestrator.holds where reason = 'running' and holds.worker = silent.worker
            )
            order by due_at limit $1
            for update skip locked
         )",
        i64::from(workers_max),
    )
    .execute(tx.raw())
    .await?;
    let rows = sqlx::query!(
        r#"update orchestrator.workers as silent set
              -- One that did not come by is asked again.
              round = case when silent.question_ms is null then silent.round + 1 else silent.round end,
              question_ms = ceil(extract(epoch from clock_timestamp()) * 1000)::bigint,
              due_at = now() + $2 * silent.lease_ms * interval '1 millisecond'
           where worker in (
              select worker from orchestrator.workers
              where due_at <= now() and lost_reason is null
              order by due_at limit $1
              for update skip locked
           )
           returning worker, round, question_ms as "question_ms!""#,
        i64::from(workers_max),
        i64::from(LEASES_PER_QUESTION_MAX),
    )
    .fetch_all(tx.raw())
    .await?;
    let question = |row: (String, i32, i64)| Question { worker: row.0, round: unsigned(row.1), at_ms: row.2 };
    Ok(rows.into_iter().map(|row| question((row.worker, row.round, row.question_ms))).collect())
}

/// Sends on the next calls of a lost worker, in a transaction of its own. When none is left, a notice tells the worker,
/// if it had calls; an old notice is deleted, and the worker is forgotten. None if no worker is due, or other callers
/// have locked them.
pub async fn release_lost(pool: &Pool, max: ReleaseMax, notice: &Notice<'_>) -> Result<Option<Released>, Error> {
    let mut tx = pool.begin().await?;
    let row = sqlx::query!(
        r#"select worker, lost_reason as "lost_reason!", released from orchestrator.workers
           where due_at <= now() and lost_reason is not null
           order by due_at limit 1
           for update skip locked"#
    )
    .fetch_optional(tx.raw())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let reason = LostReason::parse(&row.lost_reason)
        .ok_or_else(|| Error::Corrupt(format!("reason of a loss `{}`", row.lost_reason)))?;
    let calls = release(&mut tx, &row.worker, max).await?;
    let released = unsigned(row.released).saturating_add(calls);
    let finished = if has_calls(&mut tx, &row.worker).await? {
        let pause_ms = if calls == 0 { LOCKED_PAUSE_MS } else { 0 };
        sqlx::query!(
            "update orchestrator.workers set released = $2, due_at = now() + $3 * interval '1 millisecond'
             where worker = $1",
            row.worker,
            signed(released),
            f64::from(pause_ms),
        )
        .execute(tx.raw())
        .await?;
        None
    } else if released > 0 {
        outbox::append(&mut tx, &[notice.tell(&row.worker)]).await?;
        sqlx::query!(
            "update orchestrator.workers
             set released = 0, told_at = now(), due_at = now() + $2 * interval '1 millisecond'
             where worker = $1",
            row.worker,
            notice.kept_ms as f64,
        )
        .execute(tx.raw())
        .await?;
        Some(released)
    } else {
        forget(&mut tx, &row.worker, notice).await?;
        Some(0)
    };
    tx.commit().await?;
    Ok(Some(Released { worker: row.worker, reason, calls, finished }))
}

/// Forgets a lost worker that has no calls, once its notice is old, and takes that back. Until then, a call that comes
/// late is sent on at once.
async fn forget(tx: &mut Tx, worker: &str, notice: &Notice<'_>) -> Result<(), Error> {
    let kept_ms = notice.kept_ms as f64;
    let forgotten = sqlx::query_scalar!(
        "delete from orchestrator.workers
         where worker = $1 and told_at + $2 * interval '1 millisecond' <= now()
         returning worker",
        worker,
        kept_ms,
    )
    .fetch_optional(tx.raw())
    .await?;
    if forgotten.is_some() {
        return outbox::append(tx, &[notice.take_back(worker)]).await;
    }
    sqlx::query!(
        "update orchestrator.workers
         set told_at = coalesce(told_at, now()), due_at = coalesce(told_at, now()) + $2 * interval '1 millisecond'
         where worker = $1",
        worker,
        kept_ms,
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// The instance of a worker, whose name is `instance/start`.
fn instance_of(worker: &str) -> &str {
    worker.rsplit_once('/').map_or(worker, |(instance, _)| instance)
}
