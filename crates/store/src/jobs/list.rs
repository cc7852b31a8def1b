//! Lists of jobs, newest first.
//!
//! Invariant: no list reads a table as a whole. A correlation id, an ordering key and stuck jobs are found by index;
//! anything else is chosen among the acceptances of a time, which are walked by their primary key, a bounded number for each page.

use events::trace::TraceId;
use flow::event::{JobEvent, JobStatus};
use flow::facts::JobFacts;
use flow::id::JobId;
use uuid::Uuid;

use crate::columns::{status_of, trace_of, unsigned};
use crate::{Error, Pool, history, retention};

/// The choice of jobs; what is none chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobChoice {
    pub correlation_id: Option<String>,
    /// The ordering key.
    pub key: Option<String>,
    pub flow: Option<String>,
    /// One of these.
    pub statuses: Option<Vec<JobStatus>>,
    /// Accepted at this time or later, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Accepted before this time.
    pub until_ms: Option<i64>,
    /// Those that are stuck, and no others.
    pub is_stuck: bool,
}

/// A job in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedJob {
    pub facts: JobFacts,
    /// As the projection has it: `accepted` until it has seen an event.
    pub status: JobStatus,
    pub updated_at_ms: i64,
    /// Since when it is known to be stuck; none: it is not.
    pub stuck_since_ms: Option<i64>,
    pub steps_total: u32,
    pub trace_id: Option<TraceId>,
    /// The last event of a step.
    pub last: Option<JobEvent>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct JobPage {
    /// Newest first.
    pub jobs: Vec<ListedJob>,
    /// The job after which the next page begins. A page may be short, or empty, and yet not the last one.
    pub after: Option<JobId>,
}

struct Row {
    job: Uuid,
    flow: String,
    version: String,
    key: String,
    correlation_id: String,
    steps_total: i32,
    trace_id: Option<String>,
    retry_of: Option<Uuid>,
    accepted_at_ms: i64,
    status: Option<String>,
    updated_at_ms: Option<i64>,
    stuck_since_ms: Option<i64>,
    lines: Option<Vec<u8>>,
}

impl Row {
    fn job(self, tenant: &str) -> Result<ListedJob, Error> {
        let facts = JobFacts {
            job: JobId::new(self.job),
            tenant: tenant.to_owned(),
            flow: self.flow,
            version: self.version,
            key: self.key,
            correlation_id: self.correlation_id,
            accepted_at_ms: self.accepted_at_ms,
            retry_of: self.retry_of.map(JobId::new),
        };
        let steps_total = unsigned(self.steps_total);
        let entries = history::read(&self.lines.unwrap_or_default(), &facts, steps_total)?;
        let of_step = |event: &JobEvent| event.step.is_some() && event.stuck_at().is_none();
        let last = entries.into_iter().rev().map(|entry| entry.event).find(of_step);
        Ok(ListedJob {
            status: self.status.as_deref().map_or(Ok(JobStatus::Accepted), status_of)?,
            updated_at_ms: self.updated_at_ms.unwrap_or(self.accepted_at_ms),
            stuck_since_ms: self.stuck_since_ms,
            steps_total,
            trace_id: trace_of(self.trace_id.as_deref())?,
            last,
            facts,
        })
    }
}

/// The tenant's jobs that are chosen: at most `jobs_max` of them, among `looked_max` acceptances.
pub async fn list(
    pool: &Pool,
    tenant: &str,
    choice: &JobChoice,
    after: Option<JobId>,
    jobs_max: u32,
    looked_max: u32,
) -> Result<JobPage, Error> {
    let from = choice.since_ms.map_or_else(Uuid::nil, retention::bound);
    let below = choice.until_ms.map_or_else(Uuid::max, retention::bound).min(after.map_or_else(Uuid::max, JobId::uuid));
    let statuses = choice.statuses.as_ref().map(|statuses| {
        let words = statuses.iter().map(|status| status.as_str().to_owned());
        words.collect::<Vec<_>>()
    });
    let rows = sqlx::query_file_as!(
        Row,
        "queries/list_jobs.sql",
        tenant,
        from,
        below,
        i64::from(jobs_max),
        choice.correlation_id,
        choice.key,
        choice.flow,
        statuses.as_deref() as Option<&[String]>,
        i64::from(looked_max),
        choice.is_stuck,
    )
    .fetch_all(pool.raw())
    .await?;
    let jobs = rows.into_iter().map(|row| row.job(tenant)).collect::<Result<Vec<_>, _>>()?;
    let last = jobs.last().map(|job| job.facts.job);
    if jobs.len() >= jobs_max as usize {
        return Ok(JobPage { jobs, after: last });
    }
    let looked_at = sqlx::query_file_scalar!(
        "queries/last_looked_at.sql",
        from,
        below,
        choice.correlation_id,
        choice.key,
        i64::from(looked_max),
        choice.is_stuck,
    )
    .fetch_optional(pool.raw())
    .await?;
    // Jobs that were accepted since then push it back: nothing is listed twice for that.
    let after = looked_at.map(JobId::new).map(|looked_at| last.map_or(looked_at, |last| last.min(looked_at)));
    Ok(JobPage { jobs, after })
}
