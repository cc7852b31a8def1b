//! How many jobs are not over, as far as the projection is.

use std::collections::HashMap;

use uuid::Uuid;

use crate::{Error, Pool, Tx};

/// The statements read every job that is not over, and nothing waits for them.
const BEGIN: &str = "set transaction isolation level repeatable read, read only; set local statement_timeout = '10min'";

/// The jobs that are not over, and the events by which that is known.
#[derive(Debug, Default)]
pub struct OpenJobs {
    /// For each partition of the events, the offset of the first one that is not counted in.
    pub next_offsets: HashMap<i32, i64>,
    /// By tenant and flow.
    pub counts: HashMap<(String, String), u64>,
}

/// The jobs of one tenant and flow in a page.
struct Group {
    /// None: of jobs that are not kept any more.
    name: Option<(String, String)>,
    open: i64,
    last: Uuid,
}

/// Counts the jobs that are not over, from one snapshot with the offsets of this topic of events. The search for stuck
/// jobs has looked at every job up to one of them, and watches those of them that are not over; behind it every job is
/// looked at. `page_jobs`: so many are read at once.
pub async fn count(pool: &Pool, topic: &str, page_jobs: u32) -> Result<OpenJobs, Error> {
    let mut tx = pool.begin().await?;
    sqlx::raw_sql(BEGIN).execute(tx.raw()).await?;
    let offsets = sqlx::query!("select partition, next_offset from orchestrator.offsets where topic = $1", topic)
        .fetch_all(tx.raw())
        .await?;
    let walked_to = sqlx::query_scalar!("select walked_to from orchestrator.watch").fetch_one(tx.raw()).await?;
    let mut counts = HashMap::new();
    let mut after = Uuid::nil();
    while let Some(last) = add(&mut counts, watched(&mut tx, (after, walked_to), page_jobs).await?) {
        after = last;
    }
    let mut after = walked_to;
    while let Some(last) = add(&mut counts, later(&mut tx, after, page_jobs).await?) {
        after = last;
    }
    tx.commit().await?;
    let next_offsets = offsets.into_iter().map(|row| (row.partition, row.next_offset)).collect();
    Ok(OpenJobs { next_offsets, counts })
}

/// The watched jobs behind `after`, up to `walked_to`.
async fn watched(tx: &mut Tx, (after, walked_to): (Uuid, Uuid), page_jobs: u32) -> Result<Vec<Group>, Error> {
    let rows = sqlx::query!(
        r#"with page as materialized (
               select job from orchestrator.watched where job > $1 and job <= $2 order by job limit $3
           )
           select jobs.tenant as "tenant?", jobs.flow as "flow?", max(page.job::text)::uuid as "last!",
                  count(*) filter (where jobs.status not in ('succeeded', 'failed', 'cancelled')) as "open!"
           from page left join lateral (
               select tenant, flow, status from orchestrator.jobs where jobs.job = page.job limit 1
           ) as jobs on true
           group by jobs.tenant, jobs.flow"#,
        after,
        walked_to,
        i64::from(page_jobs),
    )
    .fetch_all(tx.raw())
    .await?;
    let groups = rows.into_iter();
    Ok(groups.map(|row| Group { name: row.tenant.zip(row.flow), open: row.open, last: row.last }).collect())
}

/// The jobs behind `after`.
async fn later(tx: &mut Tx, after: Uuid, page_jobs: u32) -> Result<Vec<Group>, Error> {
    let rows = sqlx::query!(
        r#"with page as materialized (
               select job, tenant, flow, status from orchestrator.jobs where job > $1 order by job limit $2
           )
           select tenant as "tenant!", flow as "flow!", max(job::text)::uuid as "last!",
                  count(*) filter (where status not in ('succeeded', 'failed', 'cancelled')) as "open!"
           from page group by tenant, flow"#,
        after,
        i64::from(page_jobs),
    )
    .fetch_all(tx.raw())
    .await?;
    let groups = rows.into_iter();
    Ok(groups.map(|row| Group { name: Some((row.tenant, row.flow)), open: row.open, last: row.last }).collect())
}

/// Adds a page. The last job of it; none for the page behind the end.
fn add(counts: &mut HashMap<(String, String), u64>, page: Vec<Group>) -> Option<Uuid> {
    let last = page.iter().map(|group| group.last).max();
    for Group { name, open, .. } in page.into_iter().filter(|group| group.open > 0) {
        if let Some(name) = name {
            *counts.entry(name).or_default() += open.unsigned_abs();
        }
    }
    last
}
