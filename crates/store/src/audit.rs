//! `ingest.audit` and `ingest.audit_results`: what somebody has asked for that changes something. Rows are only ever
//! added.

use uuid::Uuid;

use crate::{Error, Pool};

/// A deed that is about to be done.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// UUIDv7.
    pub id: Uuid,
    pub tenant: &'a str,
    pub subject: &'a str,
    pub action: &'a str,
    pub object: &'a str,
    pub client: Option<&'a str>,
    pub trace_id: Option<&'a str>,
}

/// A deed, as the log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: Uuid,
    pub subject: Option<String>,
    pub action: String,
    pub object: String,
    pub client: Option<String>,
    pub trace_id: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The status of the answer; none where the process has ended before it.
    pub status: Option<i32>,
}

/// The choice of entries; what is none chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    pub subject: Option<String>,
    pub action: Option<String>,
    pub object: Option<String>,
    /// At this time or later, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Before this time.
    pub until_ms: Option<i64>,
    /// Ids below this one.
    pub below: Option<Uuid>,
}

/// Adds a deed before it is done.
pub async fn begin(pool: &Pool, new: NewEntry<'_>) -> Result<(), Error> {
    sqlx::query!(
        "insert into ingest.audit (id, tenant, subject, action, object, client, trace_id)
         values ($1, $2, $3, $4, $5, $6, $7)",
        new.id,
        new.tenant,
        new.subject,
        new.action,
        new.object,
        new.client,
        new.trace_id,
    )
    .execute(pool.raw())
    .await?;
    Ok(())
}

/// Adds the status with which it was answered.
pub async fn end(pool: &Pool, id: Uuid, status: u16) -> Result<(), Error> {
    sqlx::query!(
        "insert into ingest.audit_results (id, status) values ($1, $2) on conflict (id) do nothing",
        id,
        i32::from(status),
    )
    .execute(pool.raw())
    .await?;
    Ok(())
}

/// The tenant's chosen deeds, newest first.
pub async fn list(pool: &Pool, tenant: &str, choice: &Choice, entries_max: u32) -> Result<Vec<Entry>, Error> {
    let entries = sqlx::query_as!(
        Entry,
        r#"select id, subject as "subject?", action, object, client, trace_id,
                  (extract(epoch from audit.at) * 1000)::bigint as "at_ms!", result.status as "status?"
           from ingest.audit audit left join ingest.audit_results result using (id)
           where tenant = $1
             and ($2::text is null or subject = $2) and ($3::text is null or action = $3)
             and ($4::text is null or object = $4)
             and ($5::bigint is null or audit.at >= to_timestamp($5 / 1000.0))
             and ($6::bigint is null or audit.at < to_timestamp($6 / 1000.0))
             and ($7::uuid is null or id < $7)
           order by id desc limit $8"#,
        tenant,
        choice.subject,
        choice.action,
        choice.object,
        choice.since_ms,
        choice.until_ms,
        choice.below,
        i64::from(entries_max),
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(entries)
}

/// The tenant's jobs, those that were submitted last first, by whom: of the choice, the action is not used, and the
/// object is a job.
pub async fn submitted(pool: &Pool, tenant: &str, choice: &Choice, jobs_max: u32) -> Result<Vec<Entry>, Error> {
    let job = choice.object.as_deref().map(Uuid::parse_str);
    let Ok(job) = job.transpose() else { return Ok(Vec::new()) };
    let entries = sqlx::query_as!(
        Entry,
        r#"select job as "id!", submitted_by as "subject?", 'job.submit' as "action!", job::text as "object!",
                  null::text as "client?", trace_id, (extract(epoch from accepted_at) * 1000)::bigint as "at_ms!",
                  202 as "status?"
           from ingest.acceptances
           where tenant = $1 and ($2::text is null or submitted_by = $2) and ($3::uuid is null or job = $3)
             and ($4::bigint is null or accepted_at >= to_timestamp($4 / 1000.0))
             and ($5::bigint is null or accepted_at < to_timestamp($5 / 1000.0))
             and ($6::uuid is null or job < $6)
           order by job desc limit $7"#,
        tenant,
        choice.subject,
        job,
        choice.since_ms,
        choice.until_ms,
        choice.below,
        i64::from(jobs_max),
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(entries)
}
