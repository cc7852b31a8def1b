//! Reading a job: its acceptance and its projection.

use flow::facts::JobFacts;
use flow::id::JobId;
use uuid::Uuid;

use super::{JobSummary, Projection, StoredJob};
use crate::acceptances::Acceptance;
use crate::cancels::CancelWish;
use crate::columns::{status_of, trace_of, unsigned};
use crate::history;
use crate::{Error, Pool};

/// The tenant's job, in one query; none if it is unknown or another tenant's.
pub async fn get(pool: &Pool, tenant: &str, job: JobId) -> Result<Option<StoredJob>, Error> {
    let row = sqlx::query_file_as!(StoredRow, "queries/get_job.sql", job.uuid(), tenant).fetch_one(pool.raw()).await?;
    let acceptance = row.acceptance(job)?;
    let cancel = row.cancel();
    let projection = row.projection(job)?;
    Ok((acceptance.is_some() || projection.is_some()).then_some(StoredJob { acceptance, projection, cancel }))
}

/// The projection of a job, as Postgres has it.
pub(super) struct ProjectedRow {
    pub(super) job: Uuid,
    pub(super) tenant: String,
    pub(super) flow: String,
    pub(super) version: String,
    pub(super) key: String,
    pub(super) correlation_id: String,
    pub(super) status: String,
    pub(super) cursor: i64,
    pub(super) steps_total: i32,
    pub(super) accepted_at_ms: i64,
    pub(super) updated_at_ms: i64,
    pub(super) trace_id: Option<String>,
    pub(super) retry_of: Option<Uuid>,
}

impl TryFrom<ProjectedRow> for JobSummary {
    type Error = Error;

    fn try_from(row: ProjectedRow) -> Result<Self, Error> {
        Ok(Self {
            facts: JobFacts {
                job: JobId::new(row.job),
                tenant: row.tenant,
                flow: row.flow,
                version: row.version,
                key: row.key,
                correlation_id: row.correlation_id,
                accepted_at_ms: row.accepted_at_ms,
                retry_of: row.retry_of.map(JobId::new),
            },
            status: status_of(&row.status)?,
            cursor: row.cursor,
            steps_total: unsigned(row.steps_total),
            updated_at_ms: row.updated_at_ms,
            trace_id: trace_of(row.trace_id.as_deref())?,
        })
    }
}

/// An acceptance and a projection side by side, either of which may be missing.
struct StoredRow {
    tenant: Option<String>,
    flow: Option<String>,
    version: Option<String>,
    key: Option<String>,
    correlation_id: Option<String>,
    input: Option<Vec<u8>>,
    accepted_at_ms: Option<i64>,
    deadline_ms: Option<i64>,
    steps_total: Option<i32>,
    trace_id: Option<String>,
    retry_of: Option<Uuid>,
    seen_tenant: Option<String>,
    seen_flow: Option<String>,
    seen_version: Option<String>,
    seen_key: Option<String>,
    seen_correlation_id: Option<String>,
    seen_status: Option<String>,
    seen_partition: Option<i32>,
    seen_cursor: Option<i64>,
    seen_steps_total: Option<i32>,
    seen_accepted_at_ms: Option<i64>,
    seen_updated_at_ms: Option<i64>,
    seen_trace_id: Option<String>,
    seen_retry_of: Option<Uuid>,
    seen_history: Option<Vec<u8>>,
    cancel_by: Option<String>,
    cancel_reason: Option<String>,
    cancel_at_ms: Option<i64>,
}

impl StoredRow {
    fn acceptance(&self, job: JobId) -> Result<Option<Acceptance>, Error> {
        let trace_id = trace_of(self.trace_id.as_deref())?;
        let acceptance = || {
            Some(Acceptance {
                facts: JobFacts {
                    job,
                    tenant: self.tenant.clone()?,
                    flow: self.flow.clone()?,
                    version: self.version.clone()?,
                    key: self.key.clone()?,
                    correlation_id: self.correlation_id.clone()?,
                    accepted_at_ms: self.accepted_at_ms?,
                    retry_of: self.retry_of.map(JobId::new),
                },
                input: self.input.clone()?,
                deadline_ms: self.deadline_ms,
                steps_total: unsigned(self.steps_total?),
                trace_id,
            })
        };
        Ok(acceptance())
    }

    fn cancel(&self) -> Option<CancelWish> {
        let (requested_by, at_ms) = (self.cancel_by.clone()?, self.cancel_at_ms?);
        Some(CancelWish { requested_by, reason: self.cancel_reason.clone(), at_ms })
    }

    fn projection(self, job: JobId) -> Result<Option<Projection>, Error> {
        let Some(projected) = self.projected(job) else { return Ok(None) };
        let summary = JobSummary::try_from(projected)?;
        let history = history::read(&self.seen_history.unwrap_or_default(), &summary.facts, summary.steps_total)?;
        let partition = self.seen_partition.unwrap_or_default();
        Ok(Some(Projection { partition, summary, history }))
    }

    fn projected(&self, job: JobId) -> Option<ProjectedRow> {
        Some(ProjectedRow {
            job: job.uuid(),
            tenant: self.seen_tenant.clone()?,
            flow: self.seen_flow.clone()?,
            version: self.seen_version.clone()?,
            key: self.seen_key.clone()?,
            correlation_id: self.seen_correlation_id.clone()?,
            status: self.seen_status.clone()?,
            cursor: self.seen_cursor?,
            steps_total: self.seen_steps_total?,
            accepted_at_ms: self.seen_accepted_at_ms?,
            updated_at_ms: self.seen_updated_at_ms?,
            trace_id: self.seen_trace_id.clone(),
            retry_of: self.seen_retry_of,
        })
    }
}
