//! `ingest.api_keys`: the hashes of keys, and what they allow.
//!
//! A change is told to all instances by a notification inside its transaction, so that a key that is revoked opens
//! nothing any more a moment later. Those that hear it read what has changed since they looked.

use crate::{Error, Listener, Pool, Tx};

/// The channel on which instances listen.
const CHANNEL: &str = "meanwhile_api_keys";
/// Keys that have ended are shown for so many days more.
const SHOWN_D: i32 = 90;
/// Keys in a list.
const LISTED_MAX: i64 = 2_000;
/// A transaction is over by then: Postgres ends statements and idle transactions after 30 s each.
const LATE_COMMIT_S: i64 = 120;

/// A key, as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: String,
    pub name: String,
    pub scopes: Vec<String>,
    pub created_by: String,
    /// Times are in milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    pub expires_at_ms: Option<i64>,
    pub revoked_at_ms: Option<i64>,
    pub last_used_at_ms: Option<i64>,
}

/// A key, as whoever checks credentials needs it.
#[derive(Clone, PartialEq, Eq)]
pub struct KnownKey {
    pub id: String,
    pub tenant: String,
    pub hash: Vec<u8>,
    pub scopes: Vec<String>,
    pub expires_at_ms: Option<i64>,
    pub is_revoked: bool,
    /// When the row was changed, in microseconds since the Unix epoch, by Postgres' clock.
    pub changed_at_us: i64,
}

/// A key to be stored.
#[derive(Clone, Copy)]
pub struct NewKey<'a> {
    pub id: &'a str,
    pub tenant: &'a str,
    pub name: &'a str,
    pub hash: &'a [u8],
    pub scopes: &'a [&'a str],
    pub created_by: &'a str,
    pub expires_at_ms: Option<i64>,
}

/// The outcome of [`create`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    Done,
    /// There is a key of this id.
    Taken,
    /// The tenant has so many that are valid.
    TooMany,
}

/// Stores a key, and tells all instances. Nothing is stored where there is a key of this id, or where the tenant has
/// `keys_max` valid ones.
pub async fn create(pool: &Pool, new: NewKey<'_>, keys_max: u32) -> Result<Created, Error> {
    let mut tx = pool.begin().await?;
    // Two at once are counted one after the other.
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('api_keys ' || $1, 0))", new.tenant)
        .execute(tx.raw())
        .await?;
    let valid = sqlx::query_scalar!(
        r#"select count(*) as "count!" from ingest.api_keys
           where tenant = $1 and revoked_at is null and (expires_at is null or expires_at > now())"#,
        new.tenant,
    )
    .fetch_one(tx.raw())
    .await?;
    if valid >= i64::from(keys_max) {
        return Ok(Created::TooMany);
    }
    let stored = sqlx::query!(
        "insert into ingest.api_keys (id, tenant, name, hash, scopes, created_by, expires_at)
         values ($1, $2, $3, $4, $5, $6, to_timestamp($7::bigint / 1000.0))
         on conflict (id) do nothing",
        new.id,
        new.tenant,
        new.name,
        new.hash,
        new.scopes as &[&str],
        new.created_by,
        new.expires_at_ms,
    )
    .execute(tx.raw())
    .await?;
    if stored.rows_affected() == 0 {
        return Ok(Created::Taken);
    }
    tell(&mut tx, new.id).await?;
    tx.commit().await?;
    Ok(Created::Done)
}

/// Tells all instances that keys, or what is set for tenants, have changed, once the transaction commits.
pub(crate) async fn tell(tx: &mut Tx, what: &str) -> Result<(), Error> {
    sqlx::query!("select pg_notify($1, $2)", CHANNEL, what).execute(tx.raw()).await?;
    Ok(())
}

/// Revokes one of the tenant's keys, and tells all instances. False: the tenant has no such key. A key that is revoked
/// already stays as it is.
pub async fn revoke(pool: &Pool, tenant: &str, id: &str, by: &str) -> Result<bool, Error> {
    let mut tx = pool.begin().await?;
    let known = sqlx::query!(
        "update ingest.api_keys
         set revoked_at = coalesce(revoked_at, now()), revoked_by = coalesce(revoked_by, $3), changed_at = now()
         where tenant = $1 and id = $2",
        tenant,
        id,
        by,
    )
    .execute(tx.raw())
    .await?;
    tell(&mut tx, id).await?;
    tx.commit().await?;
    Ok(known.rows_affected() == 1)
}

/// The tenant's keys, the newest first: those that are valid, and those that have ended lately.
pub async fn list(pool: &Pool, tenant: &str) -> Result<Vec<ApiKey>, Error> {
    let keys = sqlx::query_as!(
        ApiKey,
        r#"select id, name, scopes, created_by,
                  (extract(epoch from created_at) * 1000)::bigint as "created_at_ms!",
                  (extract(epoch from expires_at) * 1000)::bigint as expires_at_ms,
                  (extract(epoch from revoked_at) * 1000)::bigint as revoked_at_ms,
                  (extract(epoch from last_used_at) * 1000)::bigint as last_used_at_ms
           from ingest.api_keys where tenant = $1 order by created_at desc, id limit $2"#,
        tenant,
        LISTED_MAX,
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(keys)
}

/// The keys that have changed since that time (microseconds since the Unix epoch, by Postgres' clock), revoked ones
/// too, and some that have changed a little earlier: their transactions may have ended late.
pub async fn changed_since(pool: &Pool, since_us: i64) -> Result<Vec<KnownKey>, Error> {
    let keys = sqlx::query_as!(
        KnownKey,
        r#"select id, tenant, hash, scopes, revoked_at is not null as "is_revoked!",
                  (extract(epoch from expires_at) * 1000)::bigint as expires_at_ms,
                  (extract(epoch from changed_at) * 1000000)::bigint as "changed_at_us!"
           from ingest.api_keys
           where changed_at >= timestamptz 'epoch' + ($1::bigint - $2::bigint * 1000000) * interval '1 microsecond'"#,
        since_us,
        LATE_COMMIT_S,
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(keys)
}

/// Notes when keys were used last (milliseconds since the Unix epoch). Of two times the later one stays.
pub async fn note_used(pool: &Pool, used: &[(String, i64)]) -> Result<(), Error> {
    let ids: Vec<&str> = used.iter().map(|(id, _)| id.as_str()).collect();
    let times: Vec<i64> = used.iter().map(|(_, used_ms)| *used_ms).collect();
    sqlx::query!(
        "update ingest.api_keys as key set last_used_at = greatest(last_used_at, used.at)
         from (
            select known.id, to_timestamp(used_ms / 1000.0) as at
            from unnest($1::text[], $2::bigint[]) as said (id, used_ms)
            join ingest.api_keys as known using (id)
            order by known.id for update of known
         ) as used
         where key.id = used.id",
        &ids as &[&str],
        &times,
    )
    .execute(pool.raw())
    .await?;
    Ok(())
}

/// Forgets the keys that ended long ago.
pub async fn forget(pool: &Pool) -> Result<u64, Error> {
    let forgotten = sqlx::query!(
        "delete from ingest.api_keys where least(revoked_at, expires_at) < now() - $1::int * interval '1 day'",
        SHOWN_D,
    )
    .execute(pool.raw())
    .await?;
    Ok(forgotten.rows_affected())
}

/// Hears of changes.
pub async fn listen(pool: &Pool) -> Result<Listener, Error> {
    Listener::on(pool, CHANNEL).await
}
