//! `ingest.tenants`: what is set for a tenant; and all that belongs to one, wherever it lies.

mod belongings;

use flow::id::JobId;
use uuid::Uuid;

pub use belongings::{BELONGINGS, Belonging, Of, Pools, count, delete, export};

use crate::{Error, Pool, api_keys};

/// What is set for a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub tenant: String,
    /// For so many seconds after their ends its jobs are kept.
    pub keep_s: Option<i64>,
    /// Times are in milliseconds since the Unix epoch.
    pub disabled_at_ms: Option<i64>,
    pub deleted_at_ms: Option<i64>,
}

/// The tenants for which something is set.
pub async fn list(pool: &Pool) -> Result<Vec<Tenant>, Error> {
    let tenants = sqlx::query_as!(
        Tenant,
        r#"select tenant, keep_s, (extract(epoch from disabled_at) * 1000)::bigint as disabled_at_ms,
                  (extract(epoch from deleted_at) * 1000)::bigint as deleted_at_ms
           from ingest.tenants order by tenant"#,
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(tenants)
}

/// Sets for how long the tenant's jobs are kept; none: as flow and deployment say.
pub async fn set_keep(pool: &Pool, tenant: &str, keep_s: Option<i64>) -> Result<(), Error> {
    sqlx::query!(
        "insert into ingest.tenants (tenant, keep_s) values ($1, $2)
         on conflict (tenant) do update set keep_s = excluded.keep_s, changed_at = now()",
        tenant,
        keep_s,
    )
    .execute(pool.raw())
    .await?;
    Ok(())
}

/// The tenant's credentials open nothing any more: its keys are revoked, and its tokens are refused. All instances are
/// told. One that is disabled already stays so since then.
pub async fn disable(pool: &Pool, tenant: &str, by: &str) -> Result<(), Error> {
    let mut tx = pool.begin().await?;
    sqlx::query!(
        "insert into ingest.tenants (tenant, disabled_at) values ($1, now())
         on conflict (tenant) do update
            set disabled_at = coalesce(tenants.disabled_at, excluded.disabled_at), changed_at = now()",
        tenant,
    )
    .execute(tx.raw())
    .await?;
    sqlx::query!(
        "update ingest.api_keys set revoked_at = now(), revoked_by = $2, changed_at = now()
         where tenant = $1 and revoked_at is null",
        tenant,
        by,
    )
    .execute(tx.raw())
    .await?;
    api_keys::tell(&mut tx, tenant).await?;
    tx.commit().await
}

/// The tenant's tokens open again what they did, and it may have keys anew. False: it was not disabled.
pub async fn enable(pool: &Pool, tenant: &str) -> Result<bool, Error> {
    let mut tx = pool.begin().await?;
    let enabled = sqlx::query!(
        "update ingest.tenants set disabled_at = null, changed_at = now()
         where tenant = $1 and disabled_at is not null",
        tenant,
    )
    .execute(tx.raw())
    .await?;
    api_keys::tell(&mut tx, tenant).await?;
    tx.commit().await?;
    Ok(enabled.rows_affected() == 1)
}

/// The tenants whose credentials open nothing.
pub async fn disabled(pool: &Pool) -> Result<Vec<String>, Error> {
    let tenants = sqlx::query_scalar!("select tenant from ingest.tenants where disabled_at is not null")
        .fetch_all(pool.raw())
        .await?;
    Ok(tenants)
}

/// Notes that all its data was deleted.
pub async fn note_deleted(pool: &Pool, tenant: &str) -> Result<(), Error> {
    sqlx::query!("update ingest.tenants set deleted_at = now(), changed_at = now() where tenant = $1", tenant)
        .execute(pool.raw())
        .await?;
    Ok(())
}

/// The tenant's jobs that are not over and not parked either: their tokens may be anywhere. At most `jobs_max`, after
/// that one.
pub async fn open_jobs(pool: &Pool, tenant: &str, after: Option<JobId>, jobs_max: u32) -> Result<Vec<JobId>, Error> {
    let mut tx = pool.begin().await?;
    belongings::with_patience(&mut tx).await?;
    let jobs = sqlx::query_scalar!(
        r#"select accepted.job from ingest.acceptances as accepted
           left join orchestrator.jobs as seen on seen.job = accepted.job
           where accepted.tenant = $1 and accepted.job > $2
             and coalesce(seen.status not in ('succeeded', 'failed', 'cancelled', 'needs_attention'), true)
           order by accepted.job limit $3"#,
        tenant,
        after.map_or(Uuid::nil(), JobId::uuid),
        i64::from(jobs_max),
    )
    .fetch_all(tx.raw())
    .await?;
    Ok(jobs.into_iter().map(JobId::new).collect())
}

/// How many of these jobs are not over and not parked either.
pub async fn still_open(pool: &Pool, jobs: &[JobId]) -> Result<u64, Error> {
    let jobs: Vec<Uuid> = jobs.iter().map(|job| job.uuid()).collect();
    let open = sqlx::query_scalar!(
        r#"select count(*) as "count!" from unnest($1::uuid[]) as asked (job)
           left join orchestrator.jobs as seen on seen.job = asked.job
           where coalesce(seen.status not in ('succeeded', 'failed', 'cancelled', 'needs_attention'), true)"#,
        &jobs,
    )
    .fetch_one(pool.raw())
    .await?;
    Ok(open.unsigned_abs())
}
