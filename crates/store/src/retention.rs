//! Drops the days that are no longer kept, of tables that are partitioned by job id.
//!
//! A day is dropped once it ended long enough ago; its rows that are still needed move to the default partition first,
//! in the same transaction. They are looked for before anything is locked; from then on a trigger notes the jobs that
//! are written in that day, so that nobody waits while the day is read. A job is needed for a time after its end, so a
//! job that runs or is parked is never dropped.
//!
//! Rows of the default partition (moved rows, skewed clocks) that are not needed are deleted one by one.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::partitions::{LOCK_TIMEOUT, Partitioned};
use crate::{Error, Pool, Tx, partitions};

/// The time limit of a statement that reads a whole day.
const STATEMENT_TIMEOUT: &str = "10min";
/// The most rows of a day that are moved, while nobody can write; a day with more needed rows stays until fewer are
/// needed.
const MOVED_ROWS_MAX: usize = 2_000;
/// Rows deleted from the default partition per call.
const DELETED_ROWS_MAX: u32 = 10_000;
/// The final states of a job.
pub(crate) const FINAL: &str = "('succeeded', 'failed', 'cancelled')";

/// The outcome of one round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retired {
    /// The names of the partitions that are gone.
    pub partitions: Vec<String>,
    /// The count of their rows that are still needed, and were moved.
    pub moved_rows: u64,
    /// Rows deleted from the default partition.
    pub default_rows: u64,
    /// Partitions that stay for now: they could not be locked in time, or too much of them is still needed.
    pub postponed: u32,
}

/// The rows that are needed, in SQL.
pub(crate) struct Needed<'a> {
    /// A query for the needed job ids of a partition that holds the ids from the first to below the second.
    pub(crate) of_partition: &'a (dyn Fn(&str, Uuid, Uuid) -> String + Sync),
    /// A condition that a row of the default partition, called `kept`, is *not* needed.
    pub(crate) default_row_is_done: String,
}

/// Drops the days that ended more than `keep_ms` ago.
pub(crate) async fn retire(
    pool: &Pool,
    cut: &Partitioned,
    keep_ms: i64,
    needed: &Needed<'_>,
) -> Result<Retired, Error> {
    let now_ms = partitions::now_ms(pool).await?;
    let mut retired = Retired::default();
    for index in partitions::ended(pool, cut, now_ms - keep_ms).await? {
        match retire_one(pool, cut, index, needed).await {
            Ok(Some(moved)) => {
                retired.partitions.push(format!("{}.{}", cut.schema, partitions::name(cut, index)));
                retired.moved_rows += moved;
            }
            Ok(None) => retired.postponed += 1,
            // A lock was not available in time, or another process was faster.
            Err(error) if error.is_lock_refused() || error.sqlstate().is_some_and(|code| code == "42P01") => {
                retired.postponed += 1;
            }
            Err(error) => return Err(error),
        }
    }
    let Partitioned { schema, table, .. } = cut;
    let deleting = format!(
        "delete from {schema}.{table}_default where ctid = any (array(
            select ctid from {schema}.{table}_default as kept
            where job < '{}' and {} limit {DELETED_ROWS_MAX}
         ))",
        bound(now_ms - keep_ms),
        needed.default_row_is_done,
    );
    // Safe, here and below: the text consists of our own constants and numbers only.
    retired.default_rows = sqlx::query(AssertSqlSafe(deleting)).execute(pool.raw()).await?.rows_affected();
    Ok(retired)
}

/// The smallest job id of that time.
pub(crate) fn bound(at_ms: i64) -> Uuid {
    Uuid::from_u128(u128::try_from(at_ms).unwrap_or_default() << 80)
}

/// A day that may go.
struct Day {
    partition: String,
    /// The ids from the first to below the second.
    ids: (Uuid, Uuid),
}

/// Drops one partition. Returns the count of rows that it moved. None if too many are needed.
async fn retire_one(pool: &Pool, cut: &Partitioned, index: i64, needed: &Needed<'_>) -> Result<Option<u64>, Error> {
    let ids = (bound(index * cut.period_ms), bound((index + 1) * cut.period_ms));
    let day = Day { partition: format!("{}.{}", cut.schema, partitions::name(cut, index)), ids };
    watch(pool, cut, &day).await?;
    let jobs = look_for_needed(pool, &day, needed).await?;
    if jobs.len() > MOVED_ROWS_MAX {
        return Ok(None);
    }
    let mut attempts = 1;
    loop {
        match drop_one(pool, cut, &day, &jobs).await {
            Err(error) if error.is_lock_refused() && attempts < partitions::LOCK_ATTEMPTS => {
                partitions::pause(pool).await?;
                attempts += 1;
            }
            outcome => return outcome,
        }
    }
}

/// From its end on, every job that is written in this day is noted.
async fn watch(pool: &Pool, cut: &Partitioned, day: &Day) -> Result<(), Error> {
    let (schema, Day { partition, ids: (from, to) }) = (cut.schema, day);
    let mut tx = pool.begin().await?;
    // Making the trigger waits for writers of this day, so all others come after it.
    let watching = format!(
        "set local lock_timeout = '{LOCK_TIMEOUT}';
         create or replace trigger note_late_write after insert or update on {partition}
            for each row execute function {schema}.note_late_write();
         delete from {schema}.late_writes where job >= '{from}' and job < '{to}';"
    );
    run(&mut tx, watching).await?;
    tx.commit().await
}

/// The jobs of a day that are still needed, and perhaps a few more than [`MOVED_ROWS_MAX`]. Locks nothing.
async fn look_for_needed(pool: &Pool, day: &Day, needed: &Needed<'_>) -> Result<Vec<Uuid>, Error> {
    let mut tx = pool.begin().await?;
    run(&mut tx, format!("set local statement_timeout = '{STATEMENT_TIMEOUT}'")).await?;
    let select = (needed.of_partition)(&day.partition, day.ids.0, day.ids.1);
    let select = format!("{select} limit {}", MOVED_ROWS_MAX + 1);
    Ok(sqlx::query_scalar(AssertSqlSafe(select)).fetch_all(tx.raw()).await?)
}

/// Drops a day that was looked through, but for these jobs and those that were written since.
async fn drop_one(pool: &Pool, cut: &Partitioned, day: &Day, needed: &[Uuid]) -> Result<Option<u64>, Error> {
    let (Partitioned { schema, table, .. }, Day { partition, ids: (from, to) }) = (cut, day);
    let mut tx = pool.begin().await?;
    let locking = format!(
        "set local lock_timeout = '{LOCK_TIMEOUT}';
         lock table only {schema}.{table} in access exclusive mode;
         lock table {partition} in access exclusive mode;"
    );
    run(&mut tx, locking).await?;
    let late = format!("select job from {schema}.late_writes where job >= '{from}' and job < '{to}'");
    let mut jobs: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(late)).fetch_all(tx.raw()).await?;
    if jobs.len() > MOVED_ROWS_MAX {
        return Ok(None);
    }
    jobs.extend(needed);
    run(&mut tx, format!("alter table {schema}.{table} detach partition {partition}")).await?;
    let moving = format!("insert into {schema}.{table} select * from {partition} where job = any ($1)");
    let moved = sqlx::query(AssertSqlSafe(moving)).bind(&jobs).execute(tx.raw()).await?.rows_affected();
    let dropping =
        format!("drop table {partition}; delete from {schema}.late_writes where job >= '{from}' and job < '{to}';");
    run(&mut tx, dropping).await?;
    tx.commit().await?;
    Ok(Some(moved))
}

async fn run(tx: &mut Tx, statements: String) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(tx.raw()).await?;
    Ok(())
}
