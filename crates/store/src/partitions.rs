//! Tables that are partitioned by time: making the partitions ahead.
//!
//! A partition is made beside the table and then attached, so that inserts into the table go on meanwhile. A period for
//! which rows already lie in the default partition is left alone.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{Error, Pool};

/// The partitioning of a table.
pub(crate) struct Partitioned {
    pub(crate) schema: &'static str,
    pub(crate) table: &'static str,
    pub(crate) period_ms: i64,
    /// The storage parameters of a partition.
    pub(crate) storage: &'static str,
    /// A point in time as a bound of the partition key.
    pub(crate) bound: fn(i64) -> String,
}

/// By `created_at`, hourly.
pub(crate) const OUTBOX: Partitioned = Partitioned {
    schema: "outbox",
    table: "messages",
    period_ms: 3_600_000,
    storage: INSERT_ONLY,
    bound: |at_ms| format!("'epoch'::timestamptz + {at_ms} * interval '1 millisecond'"),
};

/// By job id, which is a UUIDv7 and starts with the milliseconds since the Unix epoch, daily.
pub(crate) const ACCEPTANCES: Partitioned = Partitioned {
    schema: "ingest",
    table: "acceptances",
    period_ms: 86_400_000,
    storage: INSERT_ONLY,
    bound: id_bound,
};

/// The same.
pub(crate) const JOBS: Partitioned = Partitioned {
    schema: "orchestrator",
    table: "jobs",
    period_ms: 86_400_000,
    // Rows are updated in place as their jobs go on.
    storage: "fillfactor = 60",
    bound: id_bound,
};

/// Rows are written once: nothing to clean up.
const INSERT_ONLY: &str = "autovacuum_vacuum_insert_threshold = -1";

fn id_bound(at_ms: i64) -> String {
    let at_ms = u128::try_from(at_ms).unwrap_or_default();
    format!("'{}'::uuid", Uuid::from_u128(at_ms << 80))
}

/// Postgres' clock, in milliseconds since the Unix epoch.
pub(crate) async fn now_ms(pool: &Pool) -> Result<i64, Error> {
    let now_ms = sqlx::query_scalar!(r#"select (extract(epoch from clock_timestamp()) * 1000)::bigint as "now!""#)
        .fetch_one(pool.raw())
        .await?;
    Ok(now_ms)
}

/// Makes those partitions from the one that holds `now_ms` to `ahead` more that do not exist. Returns how many it made.
pub(crate) async fn ensure(pool: &Pool, cut: &Partitioned, now_ms: i64, ahead: u32) -> Result<u32, Error> {
    let first = now_ms.div_euclid(cut.period_ms);
    let mut made = 0;
    for index in first..=first + i64::from(ahead) {
        if !exists(pool, cut, index).await? && make(pool, cut, index).await? {
            made += 1;
        }
    }
    Ok(made)
}

/// `messages_p473812`: the count of periods since the Unix epoch.
pub(crate) fn name(cut: &Partitioned, index: i64) -> String {
    format!("{}_p{index}", cut.table)
}

/// The partitions whose period ended at that time or before, oldest first, by the count in their names.
pub(crate) async fn ended(pool: &Pool, cut: &Partitioned, by_ms: i64) -> Result<Vec<i64>, Error> {
    let names = sqlx::query_scalar!(
        r#"select relname as "name!"
           from pg_inherits
           join pg_class on pg_class.oid = inhrelid
           join pg_namespace on pg_namespace.oid = relnamespace
           where nspname = $1 and inhparent = format('%I.%I', $1::text, $2::text)::regclass"#,
        cut.schema,
        cut.table,
    )
    .fetch_all(pool.raw())
    .await?;
    let prefix = format!("{}_p", cut.table);
    let index = |name: &String| name.strip_prefix(&prefix)?.parse::<i64>().ok();
    let mut ended: Vec<i64> = names.iter().filter_map(index).collect();
    ended.retain(|index| (index + 1) * cut.period_ms <= by_ms);
    ended.sort_unstable();
    Ok(ended)
}

async fn exists(pool: &Pool, cut: &Partitioned, index: i64) -> Result<bool, Error> {
    let exists = sqlx::query_scalar!(
        r#"select exists (
            select from pg_class join pg_namespace on pg_namespace.oid = relnamespace
            where nspname = $1 and relname = $2 and relispartition
        ) as "exists!""#,
        cut.schema,
        name(cut, index),
    )
    .fetch_one(pool.raw())
    .await?;
    Ok(exists)
}

/// One partition; false when the default partition holds rows of its period or somebody else was faster.
async fn make(pool: &Pool, cut: &Partitioned, index: i64) -> Result<bool, Error> {
    let Partitioned { schema, table, storage, .. } = cut;
    let partition = name(cut, index);
    let (from, to) = ((cut.bound)(index * cut.period_ms), (cut.bound)((index + 1) * cut.period_ms));
    let statements = format!(
        "set local lock_timeout = '2s';
         create table {schema}.{partition} (like {schema}.{table} including defaults including constraints)
            with ({storage});
         alter table {schema}.{table} attach partition {schema}.{partition} for values from ({from}) to ({to});"
    );
    let mut tx = pool.begin().await?;
    // Safe: made of our own constants and numbers only.
    match sqlx::raw_sql(AssertSqlSafe(statements)).execute(tx.raw()).await {
        Ok(_) => {
            tx.commit().await?;
            Ok(true)
        }
        Err(error) => {
            tx.rollback().await?;
            let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
            // Rows in the default partition; the table exists (three ways of losing the same race).
            if ["23514", "42P07", "42710", "23505"].contains(&code.as_str()) { Ok(false) } else { Err(error.into()) }
        }
    }
}
