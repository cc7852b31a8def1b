//! `outbox.messages`: the records to be sent to Kafka, written in the transaction of their cause. Append-only.

use events::position::LastRow;
use events::record::Record;
use sqlx::AssertSqlSafe;

use crate::columns::RecordColumns;
use crate::{Error, Pool, Role, Tx, partitions};

/// The publication that the relay streams.
pub const PUBLICATION: &str = "meanwhile_outbox";

/// The columns of `outbox.messages` in the order in which the stream gives them.
pub const COLUMNS: [&str; 7] = ["created_at", "txid", "seq", "topic", "key", "value", "headers"];

/// Appends the records, in their order, in a transaction of their own.
pub async fn send(pool: &Pool, records: &[Record]) -> Result<(), Error> {
    let mut tx = pool.begin().await?;
    append(&mut tx, records).await?;
    tx.commit().await
}

/// Appends the records, in their order, as part of the caller's transaction.
pub async fn append(tx: &mut Tx, records: &[Record]) -> Result<(), Error> {
    if records.is_empty() {
        return Ok(());
    }
    let columns: RecordColumns<'_> = records.iter().collect();
    sqlx::query!(
        "insert into outbox.messages (topic, key, value, headers)
         select topic, key, value, headers
         from unnest($1::text[], $2::bytea[], $3::bytea[], $4::bytea[]) with ordinality
            as record (topic, key, value, headers, ordinal)
         order by ordinal",
        &columns.topics as &[&str],
        &columns.keys as &[Option<&[u8]>],
        &columns.values as &[Option<&[u8]>],
        &columns.headers,
    )
    .execute(tx.raw())
    .await?;
    tx.note_appended();
    Ok(())
}

/// Tells a relay that polls of rows that were committed: to be called after [`crate::acceptances::accept_batch`], whose
/// caller should not wait for it. Returns whether relays poll; otherwise it does nothing.
pub async fn announce(pool: &Pool) -> bool {
    pool.announcer().announce().await
}

/// Makes the partitions from this hour to `hours_ahead` hours from now. Needs the role [`Role::Relay`]. Returns how
/// many were made.
pub async fn ensure_partitions(pool: &Pool, hours_ahead: u32) -> Result<u32, Error> {
    debug_assert_eq!(pool.role(), Role::Relay, "only the owner makes partitions");
    let now_ms = partitions::now_ms(pool).await?;
    partitions::ensure(pool, &partitions::OUTBOX, now_ms, hours_ahead).await
}

/// [`oldest_age_after_ms`], of the rows whose transaction is `txid_from` or later. With the last reached
/// [`crate::relayed::Watermark::txid_below`], that is the age of the oldest row that may not have been delivered.
pub async fn oldest_age_ms(pool: &Pool, txid_from: u64) -> Result<Option<i64>, Error> {
    oldest_age_after_ms(pool, LastRow { txid: txid_from, ..LastRow::default() }).await
}

/// The age in milliseconds of the oldest row after that one; none when there is no such row.
pub async fn oldest_age_after_ms(pool: &Pool, after: LastRow) -> Result<Option<i64>, Error> {
    let mut tables = partitions::aside(pool.raw(), &partitions::OUTBOX).await?;
    tables.push(("outbox.messages".to_owned(), 0));
    let mut oldest = None;
    for (table, _) in tables {
        let query = format!(
            "select (extract(epoch from clock_timestamp() - created_at) * 1000)::bigint
             from {table} where (txid, seq) > ($1::text::xid8, $2) order by txid, seq limit 1"
        );
        // Safe: the name consists of our own constants and a number.
        let query = sqlx::query_scalar(AssertSqlSafe(query)).bind(after.txid.to_string()).bind(after.seq);
        let age: Option<i64> = query.fetch_optional(pool.raw()).await?;
        oldest = oldest.max(age);
    }
    Ok(oldest)
}
