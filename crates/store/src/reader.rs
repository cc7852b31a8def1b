//! `outbox.reader`: the way in which relays read the outbox. `meanwhile migrate` chooses it, and every relay follows.

use std::fmt;

use events::position::LastRow;

use crate::relayed::{self, History};
use crate::unrelayed::txid;
use crate::{Error, Pool, Tx};

/// A way of reading the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From Postgres' log, through a logical replication slot.
    Logical,
    /// From the table, in the order of transaction ids.
    Polling,
}

impl Way {
    /// As it is stored, and as an argument.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Logical => "logical",
            Self::Polling => "polling",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The way that was chosen; none before the first choice.
pub async fn chosen(pool: &Pool) -> Result<Option<Way>, Error> {
    let way = sqlx::query_scalar!("select way from outbox.reader").fetch_optional(pool.raw()).await?;
    way.map(|way| match way.as_str() {
        "logical" => Ok(Way::Logical),
        "polling" => Ok(Way::Polling),
        _ => Err(Error::Corrupt(format!("outbox.reader.way `{way}`"))),
    })
    .transpose()
}

/// Chooses a way. Relays notice within seconds: one that finds a position of the other way compares what Kafka was
/// given with the outbox first.
pub async fn choose(pool: &Pool, way: Way) -> Result<(), Error> {
    sqlx::query!(
        "insert into outbox.reader (way) values ($1) on conflict (single) do update set way = excluded.way",
        way.as_str(),
    )
    .execute(pool.raw())
    .await?;
    Ok(())
}

/// The last row that the database knows to be on Kafka, of relays that poll.
pub async fn confirmed(pool: &Pool) -> Result<LastRow, Error> {
    let row = sqlx::query!(r#"select txid::text as "txid!", seq, began_micros from outbox.reader"#)
        .fetch_optional(pool.raw())
        .await?;
    let Some(row) = row else { return Ok(LastRow::default()) };
    Ok(LastRow { txid: txid(&row.txid)?, seq: row.seq, began_micros: row.began_micros })
}

/// Notes that this row is on Kafka, and all before it, if the server is in that history. Never goes back.
pub async fn confirm(pool: &Pool, last: LastRow, history: History) -> Result<(), Error> {
    // One transaction, so one server.
    let mut tx = pool.begin().await?;
    if relayed::history(tx.raw()).await? == history {
        note(&mut tx, last, false).await?;
    }
    tx.commit().await
}

/// The same for a recovery, which may go back.
pub async fn settle(pool: &Pool, last: LastRow) -> Result<(), Error> {
    let mut tx = pool.begin().await?;
    note(&mut tx, last, true).await?;
    tx.commit().await
}

async fn note(tx: &mut Tx, last: LastRow, may_go_back: bool) -> Result<(), Error> {
    sqlx::query!(
        "update outbox.reader set txid = $1::text::xid8, seq = $2, began_micros = $3
         where $4 or (txid, seq) < ($1::text::xid8, $2)",
        last.txid.to_string(),
        last.seq,
        last.began_micros,
        may_go_back,
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}
