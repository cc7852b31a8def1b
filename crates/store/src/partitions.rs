//! Makes partitions ahead, for tables that are partitioned by time.
//!
//! A partition is made beside the table and then attached, so that inserts into the table go on meanwhile. Attaching
//! one reads the whole default partition, while nobody can write there, so that must stay small; and a period whose
//! rows are there has no partition. Both are mended by what [`Strays`] says.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{Error, Pool, Tx};

/// The longest wait for a lock; writers queue behind it meanwhile.
pub(crate) const LOCK_TIMEOUT: &str = "50ms";
/// How often a lock is tried, with pauses in which the writers go on.
pub(crate) const LOCK_ATTEMPTS: u32 = 20;
/// Rows that are moved while the default partition takes no writes.
const MOVED_ROWS_MAX: i64 = 5_000;
/// A default partition of this size is set aside though nothing else is the matter.
const SMALL_BYTES: i64 = 1024 * 1024;

/// What becomes of rows that lie in the default partition because theirs was not made in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strays {
    /// An empty default partition takes the place of the old one, which is a table of its own from then on. For rows
    /// that nobody looks up.
    SetAside,
    /// They move to the new partition, if they are few. More of them stay, and their period has no partition.
    Move,
}

/// The partitioning of a table.
pub(crate) struct Partitioned {
    pub(crate) schema: &'static str,
    pub(crate) table: &'static str,
    pub(crate) period_ms: i64,
    /// The storage parameters of a partition.
    pub(crate) storage: &'static str,
    pub(crate) strays: Strays,
    /// The partition key.
    pub(crate) key: &'static str,
    /// A point in time as a bound of it.
    pub(crate) bound: fn(i64) -> String,
}

/// The outbox: by `created_at`, hourly.
pub(crate) const OUTBOX: Partitioned = Partitioned {
    schema: "outbox",
    table: "messages",
    period_ms: 3_600_000,
    storage: INSERT_ONLY,
    strays: Strays::SetAside,
    key: "created_at",
    bound: |at_ms| format!("'epoch'::timestamptz + {at_ms} * interval '1 millisecond'"),
};

/// Acceptances: daily, by job id, which is a UUIDv7 and starts with the milliseconds since the Unix epoch.
pub(crate) const ACCEPTANCES: Partitioned = Partitioned {
    schema: "ingest",
    table: "acceptances",
    period_ms: 86_400_000,
    storage: INSERT_ONLY,
    strays: Strays::Move,
    key: "job",
    bound: id_bound,
};

/// The projection of jobs: daily, by job id.
pub(crate) const JOBS: Partitioned = Partitioned {
    schema: "orchestrator",
    table: "jobs",
    period_ms: 86_400_000,
    // Rows are updated in place as their jobs go on.
    storage: "fillfactor = 60",
    strays: Strays::Move,
    key: "job",
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

/// Makes the missing ones of the partition that holds `now_ms` and the `ahead` ones after it. Returns their count.
pub(crate) async fn ensure(pool: &Pool, cut: &Partitioned, now_ms: i64, ahead: u32) -> Result<u32, Error> {
    let first = now_ms.div_euclid(cut.period_ms);
    let mut made = 0;
    if cut.strays == Strays::SetAside && is_in_the_way(pool, cut, first).await? {
        made += set_aside(pool, cut, now_ms).await?;
    }
    for index in first..=first + i64::from(ahead) {
        if !exists(pool, cut, index).await? && make(pool, cut, index).await? {
            made += 1;
        }
    }
    Ok(made)
}

/// The name of a partition, `messages_p473812`: it ends with the count of periods since the Unix epoch.
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

/// Whether rows of the default partition are many, or keep the partition of this period from being made.
async fn is_in_the_way(pool: &Pool, cut: &Partitioned, current: i64) -> Result<bool, Error> {
    let Partitioned { schema, table, .. } = cut;
    // Safe, here and below: the text consists of our own constants and numbers only.
    let size = format!(
        "select case when exists (select from {schema}.{table}_default)
                        then pg_relation_size('{schema}.{table}_default') else 0 end"
    );
    let bytes: i64 = sqlx::query_scalar(AssertSqlSafe(size)).fetch_one(pool.raw()).await?;
    Ok(bytes > SMALL_BYTES || (bytes > 0 && !exists(pool, cut, current).await?))
}

/// Replaces the default partition by an empty one, and makes the partition of this period if there is none, in one
/// transaction. Returns how many it made. The old one becomes the table `messages_aside_<time>`, with all its rows.
async fn set_aside(pool: &Pool, cut: &Partitioned, now_ms: i64) -> Result<u32, Error> {
    let Partitioned { schema, table, storage, .. } = cut;
    let current = now_ms.div_euclid(cut.period_ms);
    let is_missing = !exists(pool, cut, current).await?;
    let create = format!(
        "create table {schema}.{table}_next (like {schema}.{table} including defaults including constraints
            including indexes) with ({storage});"
    );
    let replace = format!(
        "lock table only {schema}.{table} in access exclusive mode;
         alter table {schema}.{table} detach partition {schema}.{table}_default;
         alter table {schema}.{table}_default rename to {table}_aside_{now_ms};
         alter table {schema}.{table}_next rename to {table}_default;
         alter table {schema}.{table} attach partition {schema}.{table}_default default;"
    );
    let mut change = Change { create, strays: None, attach: replace };
    if is_missing {
        change.create += &create_one(cut, current);
        change.attach += &attach_one(cut, current);
    }
    Ok(u32::from(attempt(pool, &change).await? && is_missing))
}

/// The tables that were set aside, oldest first, with the times at which they were.
pub(crate) async fn aside<'e>(
    executor: impl sqlx::PgExecutor<'e>,
    cut: &Partitioned,
) -> Result<Vec<(String, i64)>, Error> {
    let names = sqlx::query_scalar!(
        r#"select relname as "name!"
           from pg_class join pg_namespace on pg_namespace.oid = relnamespace
           where nspname = $1 and relkind = 'r' and not relispartition and starts_with(relname, $2)
           order by relname"#,
        cut.schema,
        format!("{}_aside_", cut.table),
    )
    .fetch_all(executor)
    .await?;
    let time = |name: String| {
        let at_ms = name.rsplit_once('_')?.1.parse().ok()?;
        Some((format!("{}.{name}", cut.schema), at_ms))
    };
    Ok(names.into_iter().filter_map(time).collect())
}

/// Makes one partition. False if the default partition holds too many rows of its period, or another process was
/// faster.
async fn make(pool: &Pool, cut: &Partitioned, index: i64) -> Result<bool, Error> {
    let Partitioned { schema, table, key, .. } = cut;
    let (default, partition) = (format!("{schema}.{table}_default"), format!("{schema}.{}", name(cut, index)));
    let (from, to) = bounds(cut, index);
    let rows = format!("{default} where {key} >= {from} and {key} < {to}");
    let moving = || Moving {
        count: format!("select count(*) from (select from {rows} limit {MOVED_ROWS_MAX} + 1) as stray"),
        carry: format!(
            "lock table {default} in share row exclusive mode;
             with moved as (delete from {rows} returning *) insert into {partition} select * from moved;"
        ),
    };
    let strays = (cut.strays == Strays::Move).then(moving);
    attempt(pool, &Change { create: create_one(cut, index), strays, attach: attach_one(cut, index) }).await
}

fn bounds(cut: &Partitioned, index: i64) -> (String, String) {
    ((cut.bound)(index * cut.period_ms), (cut.bound)((index + 1) * cut.period_ms))
}

fn create_one(cut: &Partitioned, index: i64) -> String {
    let (Partitioned { schema, table, storage, .. }, partition) = (cut, name(cut, index));
    format!(
        "create table {schema}.{partition} (like {schema}.{table} including defaults including constraints)
            with ({storage});"
    )
}

fn attach_one(cut: &Partitioned, index: i64) -> String {
    let (Partitioned { schema, table, .. }, partition) = (cut, name(cut, index));
    let (from, to) = bounds(cut, index);
    format!("alter table {schema}.{table} attach partition {schema}.{partition} for values from ({from}) to ({to});")
}

/// One transaction: what it creates beside the table, the rows that move there, and what changes the table.
struct Change {
    create: String,
    strays: Option<Moving>,
    attach: String,
}

struct Moving {
    count: String,
    carry: String,
}

/// Makes a change that waits for no lock for long: it is tried again instead. False if too many rows would have to
/// move, or another process was faster.
async fn attempt(pool: &Pool, change: &Change) -> Result<bool, Error> {
    let mut attempts = 1;
    loop {
        let mut tx = pool.begin().await?;
        let error = match make_change(&mut tx, change).await {
            Ok(true) => {
                tx.commit().await?;
                return Ok(true);
            }
            Ok(false) => return Ok(false),
            Err(error) => error,
        };
        tx.rollback().await?;
        match error.sqlstate().as_deref() {
            // Rows in the default partition; the table exists (three ways of losing the same race).
            Some("23514" | "42P07" | "42710" | "23505") => return Ok(false),
            _ if error.is_lock_refused() && attempts < LOCK_ATTEMPTS => {
                pause(pool).await?;
                attempts += 1;
            }
            _ => return Err(error),
        }
    }
}

/// Lets the writers go on.
pub(crate) async fn pause(pool: &Pool) -> Result<(), Error> {
    sqlx::query("select pg_sleep(0.1)").execute(pool.raw()).await?;
    Ok(())
}

async fn make_change(tx: &mut Tx, change: &Change) -> Result<bool, Error> {
    run(tx, format!("set local lock_timeout = '{LOCK_TIMEOUT}'; {}", change.create)).await?;
    if let Some(Moving { count, carry }) = &change.strays {
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(count.clone())).fetch_one(tx.raw()).await?;
        if count > MOVED_ROWS_MAX {
            return Ok(false);
        }
        if count > 0 {
            run(tx, carry.clone()).await?;
        }
    }
    run(tx, change.attach.clone()).await?;
    Ok(true)
}

async fn run(tx: &mut Tx, statements: String) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(tx.raw()).await?;
    Ok(())
}
