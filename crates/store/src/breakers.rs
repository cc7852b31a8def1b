//! `orchestrator.breakers`: the breakers of downstreams, and the holds that wait for them. Decisions are the caller's;
//! the clock is Postgres'.
//!
//! Invariant: whoever changes a breaker, or adds a hold that waits for it, locks its row. So no hold is left behind by
//! a breaker that has just been closed.

use events::breaker::BreakerState;
use events::record::Record;

use crate::{Error, Pool, Tx};
use events::headers::Headers;

/// Holds of one breaker that are counted for its list.
const COUNTED_MAX: i64 = 100_000;

/// The phase of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Calls are made.
    Closed,
    /// No call is made until the pause is over.
    Paused,
    /// The pause is over, and no hold was there to be the probe.
    Ready,
    /// The probe is under way.
    Probing,
    /// A probe has succeeded; the rest is let pass at a rate.
    Recovering,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Closed, Self::Paused, Self::Ready, Self::Probing, Self::Recovering];

    /// The word in Postgres and over HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Paused => "paused",
            Self::Ready => "ready",
            Self::Probing => "probing",
            Self::Recovering => "recovering",
        }
    }

    /// A word of a later version counts as closed: calls are made.
    fn read(word: &str) -> Self {
        Self::ALL.into_iter().find(|phase| phase.as_str() == word).unwrap_or(Self::Closed)
    }

    /// What it means for calls.
    pub const fn state(self) -> BreakerState {
        match self {
            Self::Closed => BreakerState::Closed,
            Self::Paused => BreakerState::Open,
            Self::Ready | Self::Probing | Self::Recovering => BreakerState::HalfOpen,
        }
    }
}

/// A breaker as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerRow {
    pub downstream: String,
    pub phase: Phase,
    /// Rises with every change that workers must know.
    pub epoch: u64,
    /// True: an operator has set its state.
    pub forced: bool,
    /// The milliseconds until it must be looked at; none: it need not be.
    pub due_in_ms: Option<u64>,
    /// The last pause before a probe.
    pub pause_ms: u64,
    /// Holds that are let pass in a second.
    pub release_per_s: f64,
    /// Holds that came to rest earlier were let pass, in microseconds since the Unix epoch.
    pub released_to_us: Option<i64>,
    /// For a person.
    pub reason: String,
    pub ordered_by: Option<String>,
    /// The number of times that it opened.
    pub openings: u64,
}

/// A breaker as its list shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedBreaker {
    pub breaker: BreakerRow,
    /// The time of its last change, in milliseconds since the Unix epoch.
    pub changed_at_ms: i64,
    /// The number of holds that wait for it, up to 100,000.
    pub waiting: u64,
}

/// Holds that were taken out: the caller must send their records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Taken {
    pub records: Vec<Record>,
    /// The time at which the last of them came to rest, in microseconds since the Unix epoch.
    pub last_held_at_us: Option<i64>,
}

macro_rules! row {
    ($row:expr) => {
        BreakerRow {
            downstream: $row.downstream,
            phase: Phase::read(&$row.phase),
            epoch: $row.epoch.unsigned_abs(),
            forced: $row.forced,
            due_in_ms: $row.due_in_ms.map(|ms| u64::try_from(ms).unwrap_or(0)),
            pause_ms: $row.pause_ms.unsigned_abs(),
            release_per_s: $row.release_per_s,
            released_to_us: $row.released_to_us,
            reason: $row.reason,
            ordered_by: $row.ordered_by,
            openings: $row.openings.unsigned_abs(),
        }
    };
}

/// Locks the breakers of these downstreams, in one order; those that nobody knows are made, closed.
pub async fn lock(tx: &mut Tx, downstreams: &[&str]) -> Result<Vec<BreakerRow>, Error> {
    if downstreams.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query!(
        "insert into orchestrator.breakers (downstream)
         select name from unnest($1::text[]) as known (name) order by name
         on conflict (downstream) do nothing",
        downstreams as &[&str],
    )
    .execute(tx.raw())
    .await?;
    let rows = sqlx::query!(
        r#"select downstream, phase, epoch, forced, pause_ms, release_per_s, reason, ordered_by, openings,
              ceil(extract(epoch from due_at - clock_timestamp()) * 1000)::bigint as due_in_ms,
              (extract(epoch from released_to) * 1000000)::bigint as released_to_us
           from orchestrator.breakers where downstream = any($1) order by downstream for update"#,
        downstreams as &[&str],
    )
    .fetch_all(tx.raw())
    .await?;
    Ok(rows.into_iter().map(|row| row!(row)).collect())
}

/// Locks the breaker that has been due for longest, unless another process has it.
pub async fn lock_due(tx: &mut Tx) -> Result<Option<BreakerRow>, Error> {
    let row = sqlx::query!(
        r#"select downstream, phase, epoch, forced, pause_ms, release_per_s, reason, ordered_by, openings,
              ceil(extract(epoch from due_at - clock_timestamp()) * 1000)::bigint as due_in_ms,
              (extract(epoch from released_to) * 1000000)::bigint as released_to_us
           from orchestrator.breakers where due_at <= clock_timestamp()
           order by due_at limit 1 for update skip locked"#
    )
    .fetch_optional(tx.raw())
    .await?;
    Ok(row.map(|row| row!(row)))
}

/// Writes a breaker that is locked.
pub async fn save(tx: &mut Tx, breaker: &BreakerRow) -> Result<(), Error> {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    sqlx::query!(
        "update orchestrator.breakers
         set phase = $2, epoch = $3, forced = $4, pause_ms = $5, release_per_s = $6, reason = $7, ordered_by = $8,
             openings = $9, due_at = clock_timestamp() + $10::bigint * interval '1 millisecond',
             released_to = timestamptz 'epoch' + $11::bigint * interval '1 microsecond',
             changed_at = case when epoch = $3 then changed_at else clock_timestamp() end
         where downstream = $1",
        breaker.downstream,
        breaker.phase.as_str(),
        signed(breaker.epoch),
        breaker.forced,
        signed(breaker.pause_ms),
        breaker.release_per_s,
        breaker.reason,
        breaker.ordered_by,
        signed(breaker.openings),
        breaker.due_in_ms.map(signed),
        breaker.released_to_us,
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// Takes out at most `holds_max` of the holds that wait for this breaker, those that came first, from that time on.
pub async fn take_held(tx: &mut Tx, downstream: &str, holds_max: u32, from_us: Option<i64>) -> Result<Taken, Error> {
    let rows = sqlx::query_file!("queries/take_held.sql", downstream, i64::from(holds_max), from_us as Option<i64>)
        .fetch_all(tx.raw())
        .await?;
    let last_held_at_us = rows.last().map(|row| row.held_at_us);
    let records: Result<Vec<Record>, Error> = rows
        .into_iter()
        .map(|row| {
            let headers = Headers::read(row.headers).map_err(|error| Error::Corrupt(error.to_string()))?;
            Ok(Record { topic: row.topic, key: row.key, value: row.value, headers })
        })
        .collect();
    Ok(Taken { records: records?, last_held_at_us })
}

/// The milliseconds until a breaker is due (0: now); none if none is.
pub async fn next_due_ms(pool: &Pool) -> Result<Option<u64>, Error> {
    let in_ms = sqlx::query_scalar!(
        "select ceil(extract(epoch from min(due_at) - clock_timestamp()) * 1000)::bigint
         from orchestrator.breakers where due_at is not null"
    )
    .fetch_one(pool.raw())
    .await?;
    Ok(in_ms.map(|ms| u64::try_from(ms).unwrap_or(0)))
}

/// All breakers, by name.
pub async fn list(pool: &Pool) -> Result<Vec<ListedBreaker>, Error> {
    let rows = sqlx::query!(
        r#"select downstream, phase, epoch, forced, pause_ms, release_per_s, reason, ordered_by, openings,
              ceil(extract(epoch from due_at - clock_timestamp()) * 1000)::bigint as due_in_ms,
              (extract(epoch from released_to) * 1000000)::bigint as released_to_us,
              (extract(epoch from changed_at) * 1000)::bigint as "changed_at_ms!",
              (select count(*) from (
                  select from orchestrator.holds as hold
                  where hold.downstream = breaker.downstream and hold.reason = 'breaker' limit $1
              ) as waiting) as "waiting!"
           from orchestrator.breakers as breaker order by downstream"#,
        COUNTED_MAX,
    )
    .fetch_all(pool.raw())
    .await?;
    let listed = rows.into_iter().map(|row| {
        let (changed_at_ms, waiting) = (row.changed_at_ms, row.waiting.unsigned_abs());
        ListedBreaker { breaker: row!(row), changed_at_ms, waiting }
    });
    Ok(listed.collect())
}
