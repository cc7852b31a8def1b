//! Dropping the days that are no longer kept, of tables that are partitioned by job id.
//!
//! A day goes once it ended so long ago; rows of it that are still needed move to the default partition first, in the
//! same transaction. A job is needed until so long after its end, so one that runs or is parked is never dropped. The
//! default partition (moved rows, skewed clocks) loses what is not needed row by row.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::partitions::Partitioned;
use crate::{Error, Pool, Tx, partitions};

/// The lock on the whole table is waited for no longer; writers queue behind it meanwhile. It tries again next time.
const LOCK_TIMEOUT: &str = "200ms";
/// A large day takes its time to be looked through.
const STATEMENT_TIMEOUT: &str = "10min";
/// Rows of a day that may move; with more it stays until fewer are needed.
const MOVED_ROWS_MAX: usize = 10_000;
/// Rows deleted from the default partition per call.
const DELETED_ROWS_MAX: u32 = 10_000;
/// The states that are never left.
pub(crate) const FINAL: &str = "('succeeded', 'failed', 'cancelled')";

/// The outcome of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retired {
    /// The names of the partitions that are gone.
    pub partitions: Vec<String>,
    /// Rows of them that are still needed, and moved.
    pub moved_rows: u64,
    /// Rows deleted from the default partition.
    pub default_rows: u64,
    /// Partitions that stay for now: they could not be locked in time, or too much of them is still needed.
    pub postponed: u32,
}

/// Which rows are needed: SQL that selects the job ids of those, from a partition.
pub(crate) struct Needed<'a> {
    /// Of a partition that holds the ids from the first to below the second.
    pub(crate) of_partition: &'a (dyn Fn(&str, Uuid, Uuid) -> String + Sync),
    /// Of the default partition: a condition that a row called `kept` is *not* needed.
    pub(crate) default_row_is_done: String,
}

/// Drops what ended more than `keep_ms` ago.
pub(crate) async fn retire(
    pool: &Pool,
    cut: &Partitioned,
    keep_ms: i64,
    needed: &Needed<'_>,
) -> Result<Retired, Error> {
    let now_ms = partitions::now_ms(pool).await?;
    let mut retired = Retired::default();
    for index in partitions::ended(pool, cut, now_ms - keep_ms).await? {
        match drop_one(pool, cut, index, needed).await {
            Ok(Some(moved)) => {
                retired.partitions.push(format!("{}.{}", cut.schema, partitions::name(cut, index)));
                retired.moved_rows += moved;
            }
            Ok(None) => retired.postponed += 1,
            // Locks that were not to be had; somebody else was faster.
            Err(error) if error.sqlstate().is_some_and(|code| ["55P03", "40P01", "42P01"].contains(&&*code)) => {
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
    // Safe, here and below: made of our own constants and numbers only.
    retired.default_rows = sqlx::query(AssertSqlSafe(deleting)).execute(pool.raw()).await?.rows_affected();
    Ok(retired)
}

/// The smallest id of that time.
fn bound(at_ms: i64) -> Uuid {
    Uuid::from_u128(u128::try_from(at_ms).unwrap_or_default() << 80)
}

/// Drops one partition; how many rows it moved. None when too many are needed.
async fn drop_one(pool: &Pool, cut: &Partitioned, index: i64, needed: &Needed<'_>) -> Result<Option<u64>, Error> {
    let Partitioned { schema, table, period_ms, .. } = cut;
    let partition = format!("{schema}.{}", partitions::name(cut, index));
    let (from, to) = (bound(index * period_ms), bound((index + 1) * period_ms));
    let mut tx = pool.begin().await?;
    // Nobody writes this day from here on; what is written of other days goes on.
    let setting = format!(
        "set local statement_timeout = '{STATEMENT_TIMEOUT}';
         set local lock_timeout = '{LOCK_TIMEOUT}';
         lock table {partition} in share row exclusive mode;"
    );
    run(&mut tx, setting).await?;
    let select = format!("{} limit {}", (needed.of_partition)(&partition, from, to), MOVED_ROWS_MAX + 1);
    let jobs: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(select)).fetch_all(tx.raw()).await?;
    if jobs.len() > MOVED_ROWS_MAX {
        return Ok(None);
    }
    let detaching = format!(
        "lock table only {schema}.{table} in access exclusive mode;
         alter table {schema}.{table} detach partition {partition};"
    );
    run(&mut tx, detaching).await?;
    let moving = format!("insert into {schema}.{table} select * from {partition} where job = any ($1)");
    let moved = sqlx::query(AssertSqlSafe(moving)).bind(&jobs).execute(tx.raw()).await?.rows_affected();
    run(&mut tx, format!("drop table {partition}")).await?;
    tx.commit().await?;
    Ok(Some(moved))
}

async fn run(tx: &mut Tx, statements: String) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(tx.raw()).await?;
    Ok(())
}
