//! How many jobs are not over, as far as the projection is.

use std::collections::HashMap;

use crate::{Error, Pool};

/// The statement looks through every job that is kept, and nothing waits for it.
const BEGIN: &str = "set transaction isolation level repeatable read, read only; set local statement_timeout = '10min'";

/// The jobs that are not over, and the events by which that is known.
#[derive(Debug, Default)]
pub struct OpenJobs {
    /// For each partition of the events, the offset of the first one that is not counted in.
    pub next_offsets: HashMap<i32, i64>,
    /// By tenant and flow.
    pub counts: HashMap<(String, String), u64>,
}

/// Counts the jobs that are not over, from one snapshot with the offsets of this topic of events.
pub async fn count(pool: &Pool, topic: &str) -> Result<OpenJobs, Error> {
    let mut tx = pool.begin().await?;
    sqlx::raw_sql(BEGIN).execute(tx.raw()).await?;
    let offsets = sqlx::query!("select partition, next_offset from orchestrator.offsets where topic = $1", topic)
        .fetch_all(tx.raw())
        .await?;
    let rows = sqlx::query!(
        r#"select tenant, flow, count(*) as "jobs!" from orchestrator.jobs
           where status not in ('succeeded', 'failed', 'cancelled') group by tenant, flow"#
    )
    .fetch_all(tx.raw())
    .await?;
    tx.commit().await?;
    Ok(OpenJobs {
        next_offsets: offsets.into_iter().map(|row| (row.partition, row.next_offset)).collect(),
        counts: rows.into_iter().map(|row| ((row.tenant, row.flow), row.jobs.unsigned_abs())).collect(),
    })
}
