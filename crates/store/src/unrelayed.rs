//! Reads the outbox as a whole, to compare it with what Kafka holds: `meanwhile relay recover`.
//!
//! All reads of one comparison share a snapshot. Where that is the snapshot of a new slot, it has exactly the rows that
//! the slot will not stream.

use std::collections::BTreeSet;

use events::record::Record;
use sqlx::AssertSqlSafe;

use crate::{Error, Pool, Tx};
use events::headers::Headers;

/// Bounds of a comparison, which waits for Kafka between its reads.
const STATEMENT_TIMEOUT: &str = "10min";
const IDLE_TIMEOUT: &str = "1h";
/// Microseconds from the Unix epoch to 2000-01-01, from which Postgres counts.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The time of a row's transaction as [`Origin::began_micros`] has it.
pub(crate) const BEGAN_MICROS: &str = "(extract(epoch from message.created_at) * 1000000)::bigint - 946684800000000";

/// A transaction that wrote rows. A promoted or restored server gives the ids of transactions that it has not heard of
/// to others, which begin at another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Its id.
    pub txid: u64,
    /// The time of its begin, as `created_at` of its rows has it, in microseconds since 2000-01-01.
    pub began_micros: i64,
}

impl Origin {
    /// The time of its begin, in milliseconds since the Unix epoch.
    pub const fn began_at_ms(&self) -> i64 {
        self.began_micros.saturating_add(POSTGRES_EPOCH_MICROS).div_euclid(1_000)
    }
}

/// A transaction, and the count of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The transaction.
    pub origin: Origin,
    /// Its rows.
    pub rows: u64,
}

/// A row, and the transaction that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The transaction.
    pub origin: Origin,
    /// Rises within it.
    pub seq: i64,
    /// The record.
    pub record: Record,
}

/// The hours whose rows the outbox holds or would hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hours(BTreeSet<i64>);

impl Hours {
    /// True if a row of that time cannot have been dropped: its hour's partition is there, or will be made later.
    pub fn keep(&self, at_ms: i64) -> bool {
        let hour = at_ms.div_euclid(events::time::HOUR_MS);
        self.0.contains(&hour) || self.0.last().is_none_or(|last| hour > *last)
    }

    /// The begin of the oldest one, in milliseconds since the Unix epoch.
    pub fn begin_ms(&self) -> Option<i64> {
        self.0.first().map(|hour| hour * events::time::HOUR_MS)
    }
}

/// The outbox as it was at one moment: its partitions, and the default partitions that were set aside. While this
/// lives, no table of it is dropped or set aside.
#[derive(Debug)]
pub struct Snapshot {
    tx: Tx,
    /// All rows, as a query.
    rows: String,
    ended_below: Option<u64>,
}

/// Keeps all tables of the outbox where they are, until it is dropped.
#[derive(Debug)]
pub struct Guard {
    _tx: Tx,
}

/// Begins to keep the tables of the outbox.
pub async fn guard(pool: &Pool) -> Result<Guard, Error> {
    Ok(Guard { _tx: begin(pool, None).await? })
}

/// A transaction that will read from one snapshot. The lock comes first: what was set aside before it is seen.
async fn begin(pool: &Pool, exported: Option<&str>) -> Result<Tx, Error> {
    let mut tx = pool.begin().await?;
    let fits = |letter: char| letter.is_ascii_hexdigit() || letter == '-';
    let import = match exported {
        None => String::new(),
        Some(name) if name.chars().all(fits) => format!("set transaction snapshot '{name}';"),
        Some(name) => return Err(Error::Corrupt(format!("snapshot `{name}`"))),
    };
    let beginning = format!(
        "set transaction isolation level repeatable read, read only; {import}
         lock table outbox.messages in access share mode;
         set local statement_timeout = '{STATEMENT_TIMEOUT}';
         set local idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}';"
    );
    // Safe: our own constants, and a name of hexadecimal digits.
    sqlx::raw_sql(AssertSqlSafe(beginning)).execute(tx.raw()).await?;
    Ok(tx)
}

impl Snapshot {
    /// Takes the exported snapshot of that name, under a [`Guard`] that was there before it; or one of now.
    pub async fn take(pool: &Pool, exported: Option<&str>) -> Result<Self, Error> {
        let mut tx = begin(pool, exported).await?;
        let aside = sqlx::query_scalar!(
            r#"select format('outbox.%I', relname) as "table!"
               from pg_class
               where relnamespace = 'outbox'::regnamespace and relkind = 'r' and not relispartition
                 and relname ~ '^messages_aside_\d+$'"#
        )
        .fetch_all(tx.raw())
        .await?;
        let tables = std::iter::once("outbox.messages".to_owned()).chain(aside);
        let rows = tables.map(|table| format!("select txid, created_at, seq, topic, key, value, headers from {table}"));
        Ok(Self { tx, rows: rows.collect::<Vec<_>>().join(" union all "), ended_below: None })
    }

    /// A snapshot of now, of the rows of such transactions only that are below the oldest one that is still open: no
    /// row will be added to them.
    pub async fn take_ended(pool: &Pool) -> Result<Self, Error> {
        let mut snapshot = Self::take(pool, None).await?;
        let below = sqlx::query_scalar!(r#"select pg_snapshot_xmin(pg_current_snapshot())::text as "below!""#)
            .fetch_one(snapshot.tx.raw())
            .await?;
        let below = txid(&below)?;
        snapshot.rows = format!("select * from ({}) as message where txid < '{below}'::xid8", snapshot.rows);
        snapshot.ended_below = Some(below);
        Ok(snapshot)
    }

    /// Of [`Snapshot::take_ended`]: the oldest transaction that it leaves out.
    pub const fn ended_below(&self) -> Option<u64> {
        self.ended_below
    }

    /// The hours that the outbox has partitions for.
    pub async fn hours(&mut self) -> Result<Hours, Error> {
        let hours = sqlx::query_scalar!(
            r#"select substring(relname from '\d+$')::bigint as "hour!"
               from pg_inherits
               join pg_class on pg_class.oid = inhrelid
               where inhparent = 'outbox.messages'::regclass and relname ~ '^messages_p\d+$'"#
        )
        .fetch_all(self.tx.raw())
        .await?;
        Ok(Hours(hours.into_iter().collect()))
    }

    /// The transactions after that one, in the order of their ids, at most so many. Who began after another one's
    /// commit comes after it.
    pub async fn written_after(&mut self, after: Option<Origin>, limit: u32) -> Result<Vec<Written>, Error> {
        let after = after.unwrap_or(Origin { txid: 0, began_micros: 0 });
        let query = format!(
            "select message.txid::text, {BEGAN_MICROS}, count(*)
             from ({}) as message
             where (message.txid, message.created_at)
                 > ($1::text::xid8, '2000-01-01Z'::timestamptz + $2::float8 * interval '1 microsecond')
             group by message.txid, message.created_at
             order by message.txid, message.created_at
             limit $3",
            self.rows
        );
        // Safe, here and below: our own constants, and names from the catalogue.
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(AssertSqlSafe(query))
            .bind(after.txid.to_string())
            .bind(after.began_micros as f64)
            .bind(i64::from(limit))
            .fetch_all(self.tx.raw())
            .await?;
        let written = |(id, began_micros, rows): (String, i64, i64)| {
            Ok(Written { origin: Origin { txid: txid(&id)?, began_micros }, rows: rows.unsigned_abs() })
        };
        rows.into_iter().map(written).collect()
    }

    /// The rows of these transactions after that one, in order, at most so many.
    pub async fn rows_after(
        &mut self,
        txids: &[u64],
        after: Option<(Origin, i64)>,
        limit: u32,
    ) -> Result<Vec<Row>, Error> {
        let txids: Vec<String> = txids.iter().map(u64::to_string).collect();
        let (after_txid, after_seq) = after.map_or((0, -1), |(origin, seq)| (origin.txid, seq));
        let query = format!(
            "select message.txid::text, {BEGAN_MICROS}, seq, topic, key, value, headers
             from ({}) as message
             where txid = any ($1::text[]::xid8[]) and (txid, seq) > ($2::text::xid8, $3)
             order by message.txid, message.seq
             limit $4",
            self.rows
        );
        let rows: Vec<Columns> = sqlx::query_as(AssertSqlSafe(query))
            .bind(&txids)
            .bind(after_txid.to_string())
            .bind(after_seq)
            .bind(i64::from(limit))
            .fetch_all(self.tx.raw())
            .await?;
        rows.into_iter().map(read).collect()
    }
}

pub(crate) type Columns = (String, i64, i64, String, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);

pub(crate) fn read((id, began_micros, seq, topic, key, value, headers): Columns) -> Result<Row, Error> {
    let headers = Headers::read(headers).map_err(|error| Error::Corrupt(error.to_string()))?;
    let origin = Origin { txid: txid(&id)?, began_micros };
    Ok(Row { origin, seq, record: Record { topic, key, value, headers } })
}

pub(crate) fn txid(text: &str) -> Result<u64, Error> {
    text.parse().map_err(|_| Error::Corrupt(format!("txid `{text}`")))
}
