//! `orchestrator.signals`: what was said to a job. A signal and the hold that waits for it meet here, whichever comes
//! first: both come by one partition, so one transaction after the other sees them.

use std::time::Duration;

use events::record::Record;
use flow::id::JobId;

use crate::{Error, Pool, Tx};
use events::headers::Headers;

/// Rows that one statement of the retention looks at.
const RETIRED_MAX: i64 = 5_000;

/// A signal to be kept until it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSignal {
    pub job: JobId,
    pub name: String,
    /// Tells repetitions of one signal from another.
    pub id: String,
    /// JSON in UTF-8.
    pub payload: Option<Vec<u8>>,
}

/// A hold that was taken out for its signal: the caller must send its record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Signalled {
    /// The slip's record, as it was put to rest.
    pub record: Record,
    /// The signal's payload, JSON in UTF-8.
    pub payload: Option<Vec<u8>>,
}

/// A signal that is known already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSignals {
    /// The payload of the one with the id that was asked for, if it is there.
    pub same: Option<Option<Vec<u8>>>,
    /// The number of those that nothing has used yet, whatever their names, up to `count_max`. Callbacks do not count:
    /// each round of a step has one.
    pub unused: u64,
}

/// Keeps signals, in their order. One that is known already is passed over.
pub async fn insert(tx: &mut Tx, signals: &[NewSignal]) -> Result<(), Error> {
    if signals.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into orchestrator.signals (job, name, id, payload)
         select job, name, id, payload
         from unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[]) with ordinality
              as signal (job, name, id, payload, ordinal)
         order by ordinal
         on conflict (job, name, id) do nothing",
        &signals.iter().map(|signal| signal.job.uuid()).collect::<Vec<_>>(),
        &signals.iter().map(|signal| signal.name.as_str()).collect::<Vec<_>>() as &[&str],
        &signals.iter().map(|signal| signal.id.as_str()).collect::<Vec<_>>() as &[&str],
        &signals.iter().map(|signal| signal.payload.as_deref()).collect::<Vec<_>>() as &[Option<&[u8]>],
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// Takes out the holds of these jobs whose signals are there, each with its own. The caller's transaction must append
/// their records to the outbox, or not commit.
pub async fn take_signalled(tx: &mut Tx, jobs: &[JobId]) -> Result<Vec<Signalled>, Error> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let jobs: Vec<_> = jobs.iter().map(|job| job.uuid()).collect();
    let rows = sqlx::query_file!("queries/take_signalled.sql", &jobs).fetch_all(tx.raw()).await?;
    rows.into_iter()
        .map(|row| {
            let headers = Headers::read(row.headers).map_err(|error| Error::Corrupt(error.to_string()))?;
            let record = Record { topic: row.topic, key: row.key, value: row.value, headers };
            Ok(Signalled { record, payload: row.payload })
        })
        .collect()
}

/// What is known of a signal before it is sent.
pub async fn look(pool: &Pool, job: JobId, name: &str, id: &str, count_max: u32) -> Result<KnownSignals, Error> {
    let row = sqlx::query!(
        r#"select
            (select count(*) from (
                select from orchestrator.signals
                where job = $1 and used_at is null and name not like 'callback:%' limit $4
            ) as unused) as "unused!",
            exists (select from orchestrator.signals where job = $1 and name = $2 and id = $3) as "known!",
            (select payload from orchestrator.signals where job = $1 and name = $2 and id = $3) as "payload?""#,
        job.uuid(),
        name,
        id,
        i64::from(count_max),
    )
    .fetch_one(pool.raw())
    .await?;
    Ok(KnownSignals { same: row.known.then_some(row.payload), unused: row.unused.unsigned_abs() })
}

/// Deletes the signals that came before that time ago, of jobs that have ended. Returns their number.
pub async fn retire(pool: &Pool, older_than: Duration) -> Result<u64, Error> {
    let (mut gone, mut after_us) = (0, 0);
    loop {
        let row = sqlx::query!(
            r#"with old as materialized (
                select job, name, id, came_at from orchestrator.signals
                where came_at < now() - $1::double precision * interval '1 second'
                  and came_at > timestamptz 'epoch' + $2::bigint * interval '1 microsecond'
                order by came_at
                limit $3
             ),
             gone as (
                delete from orchestrator.signals as signal
                using old
                where signal.job = old.job and signal.name = old.name and signal.id = old.id
                  and coalesce((select status from orchestrator.jobs where jobs.job = old.job), 'cancelled')
                      in ('succeeded', 'failed', 'cancelled')
                returning signal.job
             )
             select (select count(*) from gone) as "gone!",
                    (select (extract(epoch from max(came_at)) * 1000000)::bigint from old) as "last_us?""#,
            older_than.as_secs_f64(),
            after_us,
            RETIRED_MAX,
        )
        .fetch_one(pool.raw())
        .await?;
        gone += row.gone.unsigned_abs();
        match row.last_us {
            Some(last_us) => after_us = last_us,
            None => return Ok(gone),
        }
    }
}
