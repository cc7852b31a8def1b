//! `ingest.schedules`: how far the schedules of flows have come. It moves in the transaction that accepts the job of a
//! tick, by compare-and-set, so that a tick starts one job.

use crate::{Error, Pool, Tx};

/// The schedule of the active version of a flow, as the process knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub flow: String,
    pub revision: i64,
    /// Pattern and zone.
    pub terms: String,
}

/// A stored schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    pub flow: String,
    pub revision: i64,
    pub terms: String,
    /// All ticks up to then are done with, in milliseconds since the Unix epoch.
    pub reached_ms: i64,
}

/// Postgres' time, in milliseconds since the Unix epoch, and all stored schedules.
pub async fn all(pool: &Pool) -> Result<(i64, Vec<Reached>), Error> {
    let now_ms = crate::partitions::now_ms(pool).await?;
    let reached = sqlx::query_as!(
        Reached,
        r#"select flow, revision, terms, floor(extract(epoch from reached_at) * 1000)::bigint as "reached_ms!"
           from ingest.schedules order by flow"#,
    )
    .fetch_all(pool.raw())
    .await?;
    Ok((now_ms, reached))
}

/// Stores that these are the terms from now on, unless they are already, or a later revision has others.
pub async fn begin(pool: &Pool, known: &Known) -> Result<(), Error> {
    sqlx::query!(
        "insert into ingest.schedules as stored (flow, revision, terms, reached_at)
         values ($1, $2, $3, date_trunc('milliseconds', now()))
         on conflict (flow) do update
            set revision = excluded.revision,
                terms = excluded.terms,
                reached_at = case when stored.terms = excluded.terms then stored.reached_at else excluded.reached_at end
         where stored.revision < excluded.revision",
        known.flow,
        known.revision,
        known.terms,
    )
    .execute(pool.raw())
    .await?;
    Ok(())
}

/// Forgets the schedule of a flow of which this or a later revision has none.
pub async fn forget(pool: &Pool, flow: &str, revision: i64) -> Result<(), Error> {
    sqlx::query!("delete from ingest.schedules where flow = $1 and revision < $2", flow, revision)
        .execute(pool.raw())
        .await?;
    Ok(())
}

/// Moves a schedule on. False if another process has moved it, or another revision of the flow was applied: then give
/// the transaction up.
pub async fn advance(tx: &mut Tx, known: &Known, (from_ms, to_ms): (i64, i64)) -> Result<bool, Error> {
    let moved = sqlx::query!(
        "update ingest.schedules set reached_at = to_timestamp($4 / 1000.0::double precision)
         where flow = $1 and revision = $2
           and floor(extract(epoch from reached_at) * 1000)::bigint = $3
           and not exists (select from ingest.flows as later where later.flow = $1 and later.revision > $2)",
        known.flow,
        known.revision,
        from_ms,
        to_ms as f64,
    )
    .execute(tx.raw())
    .await?;
    Ok(moved.rows_affected() == 1)
}
