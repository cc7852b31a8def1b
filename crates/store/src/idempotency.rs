//! `ingest.idempotency`: looking keys up and forgetting them. Those of new jobs are written by
//! [`crate::acceptances`].

use flow::id::JobId;

use crate::acceptances::Idempotency;
use crate::{Error, Pool, Tx};

/// The job that a key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub job: JobId,
    /// The digest of its request.
    pub fingerprint: Vec<u8>,
}

/// Keeps a key for a job as part of the caller's transaction. False if it stands for a request already: nothing is
/// changed then. An expired key is taken over. Waits for another transaction that keeps the same key now.
pub async fn keep(tx: &mut Tx, tenant: &str, key: &Idempotency, job: JobId) -> Result<bool, Error> {
    let kept = sqlx::query!(
        "insert into ingest.idempotency as held (tenant, route, key, fingerprint, job, expires_at)
         values ($1, $2, $3, $4, $5, now() + $6::bigint * interval '1 millisecond')
         on conflict (tenant, route, key) do update
         set fingerprint = excluded.fingerprint, job = excluded.job, expires_at = excluded.expires_at
         where held.expires_at <= now()",
        tenant,
        key.scope,
        key.key,
        key.fingerprint,
        job.uuid(),
        key.retention_ms,
    )
    .execute(tx.raw())
    .await?;
    Ok(kept.rows_affected() == 1)
}

/// The job that a key stands for, unless the key has expired.
pub async fn find(pool: &Pool, tenant: &str, scope: &str, key: &str) -> Result<Option<Holder>, Error> {
    let row = sqlx::query!(
        "select job, fingerprint from ingest.idempotency
         where tenant = $1 and route = $2 and key = $3 and expires_at > now()",
        tenant,
        scope,
        key,
    )
    .fetch_optional(pool.raw())
    .await?;
    Ok(row.map(|row| Holder { job: JobId::new(row.job), fingerprint: row.fingerprint }))
}

/// Forgets at most `rows_max` expired keys; call again while it returns as many.
pub async fn purge(pool: &Pool, rows_max: u32) -> Result<u64, Error> {
    let purged = sqlx::query!(
        "delete from ingest.idempotency where ctid = any (array(
            select ctid from ingest.idempotency where expires_at <= now()
            order by expires_at limit $1 for update skip locked
         ))",
        i64::from(rows_max),
    )
    .execute(pool.raw())
    .await?;
    Ok(purged.rows_affected())
}
