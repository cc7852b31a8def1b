//! `ingest.idempotency`: looking keys up and forgetting them. They are written by [`crate::acceptances`].

use flow::id::JobId;

use crate::{Error, Pool};

/// The job that a key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub job: JobId,
    /// The digest of its request.
    pub fingerprint: Vec<u8>,
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
