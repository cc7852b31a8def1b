//! `ingest.audit` and `ingest.audit_results`: what somebody has asked for that changes something. Rows are only ever
//! added; [`retire`] alone takes old ones away.
//!
//! Promise: each row's record is in the outbox in the same transaction.

use events::audit::AuditEntry;
use events::record::Record;
use uuid::Uuid;

use crate::{Error, Pool, Role, outbox};

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

/// Rows that one call of [`retire`] takes away.
const RETIRED_ROWS_MAX: i32 = 10_000;

/// Adds a deed before it is done, and its record to the outbox: one statement, so one commit.
pub async fn begin(pool: &Pool, entry: &AuditEntry, record: &Record) -> Result<(), Error> {
    sqlx::query!(
        "with entry as (
            insert into ingest.audit (id, tenant, subject, action, object, client, trace_id, at)
            values ($1, $2, $3, $4, $5, $6, $7, to_timestamp($8::bigint / 1000.0))
         )
         insert into outbox.messages (topic, key, value, headers) values ($9, $10, $11, $12)",
        entry.id,
        entry.tenant,
        entry.subject,
        entry.action,
        entry.object,
        entry.client,
        entry.trace_id,
        entry.at_ms,
        record.topic,
        record.key,
        record.value,
        record.headers.as_bytes().to_vec(),
    )
    .execute(pool.raw())
    .await?;
    outbox::announce(pool).await;
    Ok(())
}

/// Adds the answer of an entry, and its record to the outbox; neither where the answer is there.
pub async fn end(pool: &Pool, entry: &AuditEntry, record: &Record) -> Result<(), Error> {
    let Some(answer) = entry.answer else { return Ok(()) };
    sqlx::query!(
        "with answered as (
            insert into ingest.audit_results (id, status, at) values ($1, $2, to_timestamp($3::bigint / 1000.0))
            on conflict (id) do nothing
            returning id
         )
         insert into outbox.messages (topic, key, value, headers)
         select $4::text, $5::bytea, $6::bytea, $7::bytea from answered",
        entry.id,
        i32::from(answer.status),
        answer.at_ms,
        record.topic,
        record.key,
        record.value,
        record.headers.as_bytes().to_vec(),
    )
    .execute(pool.raw())
    .await?;
    outbox::announce(pool).await;
    Ok(())
}

/// Takes entries away that are older than so many days; the database itself keeps those of the last 30 days, whatever
/// is asked of it. Needs the role [`Role::Ingest`]. Returns the count of entries.
pub async fn retire(pool: &Pool, keep_d: u32) -> Result<u64, Error> {
    debug_assert_eq!(pool.role(), Role::Ingest, "nobody else may");
    let keep_d = i32::try_from(keep_d).unwrap_or(i32::MAX);
    let mut retired = 0;
    loop {
        let rows = sqlx::query_scalar!(r#"select ingest.retire_audit($1, $2) as "rows!""#, keep_d, RETIRED_ROWS_MAX,)
            .fetch_one(pool.raw())
            .await?;
        retired += u64::try_from(rows).unwrap_or_default();
        if rows < i64::from(RETIRED_ROWS_MAX) {
            return Ok(retired);
        }
    }
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
