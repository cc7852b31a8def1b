//! Reads the outbox from its table, for a Postgres without logical decoding: in the order of transaction ids, and only
//! rows of transactions below the oldest one that is still open.
//!
//! Why that loses nothing: every transaction below `pg_snapshot_xmin` has ended when the snapshot is taken, so its rows
//! are seen or never will be, and no row comes later before one that was read. A plain "after the last `seq`" would
//! pass over rows of transactions that commit late. Why the order of a key holds: a transaction that begins after
//! another one's commit has the higher id.

use events::position::LastRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::announce::CHANNEL;
use crate::relayed::{self, History};
use crate::unrelayed::{BEGAN_MICROS, Columns, Row, read, txid};
use crate::{Error, Listener, Pool, partitions};

/// Rows and bytes of one page, and whether there is more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In order.
    pub rows: Vec<Row>,
    /// More rows can be read at once.
    pub has_more: bool,
    /// Rows behind them wait for a transaction that is open.
    pub has_waiting: bool,
}

/// A connection that reads, and that holds the lock by which one relay at a time does. It acts as the relay's role.
#[derive(Debug)]
pub struct Reader {
    connection: PgConnection,
}

/// The transactions that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// The oldest one that is open, or else the next one.
    pub oldest: u64,
    /// The next one.
    pub next: u64,
    /// The process of the oldest one; none: it is prepared, or over.
    pub process: Option<i32>,
}

impl Reader {
    /// Connects. Postgres ends the connection, and so the lock, after so long without a call (0: never).
    pub async fn connect(pool: &Pool, silence_ms: u64) -> Result<Self, Error> {
        Ok(Self { connection: pool.own_connection(silence_ms).await? })
    }

    /// Takes the lock of the outbox' name; false while another connection has it.
    pub async fn lock(&mut self, name: &str) -> Result<bool, Error> {
        let taken = sqlx::query_scalar!(
            r#"select pg_try_advisory_lock(hashtextextended('meanwhile relay ' || $1, 0)) as "taken!""#,
            name
        )
        .fetch_one(&mut self.connection)
        .await?;
        Ok(taken)
    }

    /// The history that the server is in.
    pub async fn history(&mut self) -> Result<History, Error> {
        relayed::history(&mut self.connection).await
    }

    /// Keeps the connection from being ended.
    pub async fn stay(&mut self) -> Result<(), Error> {
        Ok(self.connection.ping().await?)
    }

    /// True if this very row is in the outbox.
    pub async fn knows(&mut self, row: LastRow) -> Result<bool, Error> {
        let mut tx = self.connection.begin().await?;
        let tables = tables(&mut tx).await?;
        let query = format!(
            "select exists (
                select from ({tables}) as message
                where txid = $1::text::xid8 and seq = $2 and {BEGAN_MICROS} = $3
            )"
        );
        // Safe, here and below: our own constants, and names from the catalogue.
        let knows = sqlx::query_scalar(AssertSqlSafe(query))
            .bind(row.txid.to_string())
            .bind(row.seq)
            .bind(row.began_micros)
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(knows)
    }

    /// The rows after that one: at most so many, and not many more bytes than that.
    pub async fn page(&mut self, after: LastRow, rows_max: u32, bytes_max: u64) -> Result<Page, Error> {
        let mut tx = self.connection.begin().await?;
        let tables = tables(&mut tx).await?;
        // A sum of lengths reads no value that is stored apart from its row.
        let query = format!(
            "select txid::text, {BEGAN_MICROS}, seq, topic, key, value, headers
             from (
                select *, coalesce(sum(
                    octet_length(topic) + coalesce(octet_length(key), 0) + coalesce(octet_length(value), 0)
                    + octet_length(headers)
                ) over (order by txid, seq rows between unbounded preceding and 1 preceding), 0) as bytes_before
                from (
                    select * from ({tables}) as message
                    where (txid, seq) > ($1::text::xid8, $2) and txid < pg_snapshot_xmin(pg_current_snapshot())
                    order by txid, seq limit $3
                ) as message
             ) as message
             where bytes_before < $4
             order by message.txid, message.seq"
        );
        let rows: Vec<Columns> = sqlx::query_as(AssertSqlSafe(query))
            .bind(after.txid.to_string())
            .bind(after.seq)
            .bind(i64::from(rows_max))
            .bind(i64::try_from(bytes_max).unwrap_or(i64::MAX))
            .fetch_all(&mut *tx)
            .await?;
        let rows = rows.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let last = rows.last().map_or(after, place);
        let left = format!(
            "select exists (
                 select from ({tables}) as message
                 where (txid, seq) > ($1::text::xid8, $2) and txid < pg_snapshot_xmin(pg_current_snapshot())
             ), exists (select from ({tables}) as message where (txid, seq) > ($1::text::xid8, $2))"
        );
        let (has_more, is_any): (bool, bool) =
            sqlx::query_as(AssertSqlSafe(left)).bind(last.txid.to_string()).bind(last.seq).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(Page { rows, has_more, has_waiting: is_any && !has_more })
    }

    /// Ends the connection, and with it the lock.
    pub async fn close(self) {
        let _ = self.connection.close().await;
    }
}

/// The place of a row.
pub const fn place(row: &Row) -> LastRow {
    LastRow { txid: row.origin.txid, seq: row.seq, began_micros: row.origin.began_micros }
}

/// All rows, as a query: the table, and its default partitions that were set aside. The lock comes first: until the
/// transaction ends, none is set aside.
async fn tables(tx: &mut PgConnection) -> Result<String, Error> {
    sqlx::raw_sql("lock table only outbox.messages in access share mode").execute(&mut *tx).await?;
    let aside = partitions::aside(&mut *tx, &partitions::OUTBOX).await?.into_iter().map(|(table, _)| table);
    let tables = std::iter::once("outbox.messages".to_owned()).chain(aside);
    let tables = tables.map(|table| format!("select txid, created_at, seq, topic, key, value, headers from {table}"));
    Ok(tables.collect::<Vec<_>>().join(" union all "))
}

/// The transactions of the whole server that are open now.
pub async fn horizon(pool: &Pool) -> Result<Horizon, Error> {
    let row = sqlx::query!(
        r#"select pg_snapshot_xmin(pg_current_snapshot())::text as "oldest!",
                  pg_snapshot_xmax(pg_current_snapshot())::text as "next!",
                  (select pid from pg_stat_activity
                   where backend_xid = pg_snapshot_xmin(pg_current_snapshot())::xid limit 1) as "process?""#
    )
    .fetch_one(pool.raw())
    .await?;
    Ok(Horizon { oldest: txid(&row.oldest)?, next: txid(&row.next)?, process: row.process })
}

/// Hears of new rows.
pub async fn listen(pool: &Pool) -> Result<Listener, Error> {
    Listener::on(pool, CHANNEL).await
}
