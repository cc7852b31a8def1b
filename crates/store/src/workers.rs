//! `orchestrator.workers`: who makes long calls, and who of them lives.
//!
//! Signs of life and questions come by one partition of `waits`, in order: whoever takes in a question has taken in
//! every sign of life that came before it. So only a question that was taken in counts as silence; time alone never
//! does, and an outage of Kafka, Postgres or this service takes no call away from anybody.

use std::collections::{BTreeMap, BTreeSet};

use events::record::Record;
use events::wait::Question;

use crate::columns::{signed, unsigned};
use crate::lanes::{ReleaseMax, has_calls, release};
use crate::{Error, Pool, Tx, outbox};

/// Who is silent through so many questions is lost.
const ROUNDS: u32 = 2;
/// A question that has not come by after so many leases is asked again: it may be lost where Kafka was restored.
const LEASES_PER_QUESTION_MAX: u32 = 20;
/// A worker whose calls are all locked by others is looked at again after this time.
const LOCKED_PAUSE_MS: u32 = 50;

/// What was heard of workers, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct News {
    /// By worker: since its last sign of life, if there was one, these questions came.
    workers: BTreeMap<String, Heard>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Heard {
    /// The lease of the last sign of life.
    lease_ms: Option<u64>,
    questions: Vec<(u32, i64)>,
}

impl News {
    /// A sign of life.
    pub fn alive(&mut self, worker: &str, lease_ms: u64) {
        let heard = Heard { lease_ms: Some(lease_ms), questions: Vec::new() };
        self.workers.insert(worker.to_owned(), heard);
    }

    /// A question that came by.
    pub fn question(&mut self, question: &Question) {
        let heard = self.workers.entry(question.worker.clone()).or_default();
        heard.questions.push((question.round, question.at_ms));
    }
}

/// Why a worker's calls are sent to others.
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

/// What [`release_lost`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The worker.
    pub worker: String,
    /// Why it is lost.
    pub reason: LostReason,
    /// How many of its calls were sent on just now.
    pub calls: u32,
    /// How many all in all, once none is left.
    pub finished: Option<u32>,
}

/// Takes news in, as part of the caller's transaction, which also moves the offsets that they came by (rule 3). Returns
/// how many workers are lost by it: [`release_lost`] has work.
pub async fn take_in(tx: &mut Tx, news: &News) -> Result<u64, Error> {
    if news.workers.is_empty() {
        return Ok(0);
    }
    lock(tx, news).await?;
    let restarted = take_in_signs(tx, news).await?;
    Ok(restarted + take_in_questions(tx, news).await?)
}

/// All rows that are to change, in one order, so that two callers never wait for each other.
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

/// A later start of an instance takes its place; starts are in the order of their texts. An earlier one that is heard
/// of afterwards takes nobody's: its lease ends as any other's.
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
    Ok(lost.rows_affected())
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

/// In how many milliseconds somebody must look at a worker (0: now); none when there is no worker.
pub async fn next_due_ms(pool: &Pool) -> Result<Option<u64>, Error> {
    let in_ms = sqlx::query_scalar!(
        "select ceil(extract(epoch from min(due_at) - clock_timestamp()) * 1000)::bigint from orchestrator.workers"
    )
    .fetch_one(pool.raw())
    .await?;
    Ok(in_ms.map(|ms| u64::try_from(ms).unwrap_or(0)))
}

/// The questions to those who were silent for too long and have calls under way, as part of the caller's transaction,
/// which must append them to the outbox; who has none is forgotten. At most `workers_max`; each is asked by one caller.
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

/// Sends on the next calls of a worker that is lost, in a transaction of its own. When none is left, the worker is
/// forgotten, and `tell` makes the record that tells it if it had any. None when no worker is lost, or others see to
/// them.
pub async fn release_lost(
    pool: &Pool,
    max: ReleaseMax,
    tell: impl FnOnce(&str) -> Record,
) -> Result<Option<Released>, Error> {
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
    } else {
        sqlx::query!("delete from orchestrator.workers where worker = $1", row.worker).execute(tx.raw()).await?;
        if released > 0 {
            outbox::append(&mut tx, &[tell(&row.worker)]).await?;
        }
        Some(released)
    };
    tx.commit().await?;
    Ok(Some(Released { worker: row.worker, reason, calls, finished }))
}

/// A worker is `instance/start`.
fn instance_of(worker: &str) -> &str {
    worker.rsplit_once('/').map_or(worker, |(instance, _)| instance)
}
