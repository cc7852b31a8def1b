//! The jobs of a list that are still known, and how far they are: what else is kept for a job goes with it.

use flow::event::JobStatus;
use flow::id::JobId;
use uuid::Uuid;

use crate::columns::{status_of, uuids};
use crate::{Error, Pool};

/// A job that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptJob {
    pub job: JobId,
    pub flow: String,
    pub version: String,
    /// Its status and the time of its last event, in milliseconds since the Unix epoch; none until that was projected.
    pub seen: Option<(JobStatus, i64)>,
}

struct Row {
    job: Uuid,
    flow: String,
    version: String,
    status: Option<String>,
    updated_at_ms: Option<i64>,
}

/// Those of these jobs that are known, of whichever tenant.
pub async fn kept(pool: &Pool, jobs: &[JobId]) -> Result<Vec<KeptJob>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select asked.job as "job!", coalesce(accepted.flow, seen.flow) as "flow!",
              coalesce(accepted.version, seen.version) as "version!", seen.status as "status?",
              (extract(epoch from seen.updated_at) * 1000)::bigint as "updated_at_ms?"
           from unnest($1::uuid[]) as asked (job)
           left join ingest.acceptances as accepted on accepted.job = asked.job
           left join orchestrator.jobs as seen on seen.job = asked.job
           where accepted.job is not null or seen.job is not null"#,
        &uuids(jobs),
    )
    .fetch_all(pool.raw())
    .await?;
    let kept = |row: Row| {
        let status = row.status.as_deref().map(status_of).transpose()?;
        let (job, seen) = (JobId::new(row.job), status.zip(row.updated_at_ms));
        Ok(KeptJob { job, flow: row.flow, version: row.version, seen })
    };
    rows.into_iter().map(kept).collect()
}
