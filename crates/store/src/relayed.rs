//! Drops outbox rows that the relay has delivered, and no others.
//!
//! A [`Watermark`] is a promise: once everything up to `lsn` is delivered, so is every row of a transaction below
//! `txid_below`. The reason: at the moment of reading, every such transaction had ended, so its commit lies before the
//! end of the log, which is read after that. The promise holds within one [`History`]: a promoted standby may lack the
//! last of what was delivered, and gives the same transaction ids and places in the log to other rows.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::{Error, Pool, Tx, partitions};

/// The longest wait for the locks of a drop; inserts queue behind it meanwhile. A later round tries again.
const DROP_LOCK_TIMEOUT: &str = "50ms";
/// Rows deleted from the default partition per call. A default partition with many is set aside before.
const DELETED_ROWS_MAX: i64 = 10_000;

/// The history that transaction ids and places in the log belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// The database cluster, as `pg_control_system()` names it.
    pub system_identifier: u64,
    /// Rises with every promotion and every restore to a point in time.
    pub timeline: u32,
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// The history it belongs to.
    pub history: History,
    /// The end of a delivered commit, or of the log at a moment when nothing was in flight.
    pub lsn: u64,
}

/// A point of the outbox that is reached when the log is delivered up to `lsn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// The history it belongs to.
    pub history: History,
    /// Every transaction below this id had ended when the watermark was taken.
    pub txid_below: u64,
    /// The end of the log right after that.
    pub lsn: u64,
}

impl Watermark {
    /// True once `delivered` proves that every row below [`Watermark::txid_below`] is delivered.
    pub fn is_reached(&self, delivered: Delivered) -> bool {
        delivered.history == self.history && delivered.lsn >= self.lsn
    }
}

/// The outcome of [`drop_relayed`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The names of the partitions that are gone.
    pub partitions: Vec<String>,
    /// Rows deleted from the default partition.
    pub default_rows: u64,
    /// Partitions that could not be locked in time; they are tried again by the next call.
    pub busy: u32,
}

/// Takes a watermark: keep it until it is reached, drop by it, take the next.
pub async fn watermark(pool: &Pool) -> Result<Watermark, Error> {
    // One connection, so one server.
    let mut tx = pool.begin().await?;
    let history = history(tx.raw()).await?;
    // The snapshot is taken before anything is evaluated, so the end of the log is read after it.
    let row = sqlx::query!(
        r#"select pg_snapshot_xmin(pg_current_snapshot())::text as "txid_below!",
                  (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint as "lsn!""#
    )
    .fetch_one(tx.raw())
    .await?;
    let txid_below = row.txid_below.parse().map_err(|_| Error::Corrupt(format!("txid `{}`", row.txid_below)))?;
    Ok(Watermark { history, txid_below, lsn: row.lsn.unsigned_abs() })
}

/// The history that this connection's server is in.
pub(crate) async fn history(connection: &mut PgConnection) -> Result<History, Error> {
    let row = sqlx::query!(
        r#"select (select system_identifier from pg_control_system()) as "system_identifier!",
                  left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) as "timeline!""#
    )
    .fetch_one(connection)
    .await?;
    // The name of a file of the log begins with the timeline, in eight hexadecimal digits.
    let timeline = u32::from_str_radix(&row.timeline, 16);
    let timeline = timeline.map_err(|_| Error::Corrupt(format!("timeline `{}`", row.timeline)))?;
    Ok(History { system_identifier: row.system_identifier.cast_unsigned(), timeline })
}

/// Drops every partition that ended more than `keep_ms` ago and holds only rows below the watermark, and so every
/// default partition that was set aside; deletes such rows from the present one. Does nothing before the watermark is
/// reached.
pub async fn drop_relayed(
    pool: &Pool,
    watermark: &Watermark,
    delivered: Delivered,
    keep_ms: i64,
) -> Result<Dropped, Error> {
    let mut dropped = Dropped::default();
    if !watermark.is_reached(delivered) {
        return Ok(dropped);
    }
    let (txid_below, now_ms) = (watermark.txid_below.to_string(), partitions::now_ms(pool).await?);
    for partition in ended_partitions(pool, keep_ms).await? {
        let mut tx = pool.begin().await?;
        // The connection may lead to another server by now.
        if history(tx.raw()).await? != watermark.history {
            return Ok(dropped);
        }
        if holds_from(&mut tx, &partition, &txid_below).await? {
            continue;
        }
        match drop_partition(&mut tx, &partition, &txid_below).await {
            Ok(true) => {
                tx.commit().await?;
                dropped.partitions.push(partition);
            }
            Ok(false) => {}
            Err(error) if error.is_lock_refused() => dropped.busy += 1,
            Err(error) => return Err(error),
        }
    }
    for (table, at_ms) in partitions::aside(pool.raw(), &partitions::OUTBOX).await? {
        let mut tx = pool.begin().await?;
        if history(tx.raw()).await? != watermark.history {
            return Ok(dropped);
        }
        // Nobody writes there any more: it was locked when it was set aside.
        if at_ms + keep_ms <= now_ms && !holds_from(&mut tx, &table, &txid_below).await? {
            sqlx::raw_sql(AssertSqlSafe(format!("drop table {table}"))).execute(tx.raw()).await?;
            tx.commit().await?;
            dropped.partitions.push(table);
        }
    }
    let mut tx = pool.begin().await?;
    if history(tx.raw()).await? == watermark.history {
        dropped.default_rows = delete_default_rows(&mut tx, &txid_below, keep_ms).await?;
        tx.commit().await?;
    }
    Ok(dropped)
}

/// `schema.partition` of those whose hour ended more than `keep_ms` ago, oldest first.
async fn ended_partitions(pool: &Pool, keep_ms: i64) -> Result<Vec<String>, Error> {
    let partitions = sqlx::query_scalar!(
        r#"select format('outbox.%I', relname) as "partition!"
           from pg_inherits
           join pg_class on pg_class.oid = inhrelid
           where inhparent = 'outbox.messages'::regclass
             and relname ~ '^messages_p\d+$'
             and (substring(relname from '\d+$')::bigint + 1) * 3600000 + $1
                 <= extract(epoch from clock_timestamp()) * 1000
           order by relname"#,
        keep_ms,
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(partitions)
}

async fn holds_from(tx: &mut Tx, partition: &str, txid_below: &str) -> Result<bool, Error> {
    let query = format!("select exists (select from {partition} where txid >= $1::text::xid8)");
    // Safe: the name comes quoted from the catalogue.
    Ok(sqlx::query_scalar(AssertSqlSafe(query)).bind(txid_below).fetch_one(tx.raw()).await?)
}

/// Drops one partition if, once it is locked against writes, it still holds no row that may be undelivered.
async fn drop_partition(tx: &mut Tx, partition: &str, txid_below: &str) -> Result<bool, Error> {
    let locking = format!(
        "set local lock_timeout = '{DROP_LOCK_TIMEOUT}';
         lock table only outbox.messages in access exclusive mode;
         lock table {partition} in access exclusive mode;"
    );
    sqlx::raw_sql(AssertSqlSafe(locking)).execute(tx.raw()).await?;
    // A transaction that began in that hour may have written since: only under the lock is the answer final.
    if holds_from(tx, partition, txid_below).await? {
        return Ok(false);
    }
    let dropping = format!("alter table outbox.messages detach partition {partition}; drop table {partition};");
    sqlx::raw_sql(AssertSqlSafe(dropping)).execute(tx.raw()).await?;
    Ok(true)
}

async fn delete_default_rows(tx: &mut Tx, txid_below: &str, keep_ms: i64) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        "delete from outbox.messages_default where ctid = any (array(
            select ctid from outbox.messages_default
            where txid < $1::text::xid8 and created_at < now() - $2::bigint * interval '1 millisecond'
            limit $3
         ))",
        txid_below,
        keep_ms,
        DELETED_ROWS_MAX,
    )
    .execute(tx.raw())
    .await?;
    Ok(deleted.rows_affected())
}
