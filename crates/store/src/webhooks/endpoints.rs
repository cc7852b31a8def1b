//! `ingest.webhook_endpoints`: every query is of one tenant. A change tells all notifiers inside its transaction: it is
//! rare.

use std::fmt;

use uuid::Uuid;

use super::CHANNEL;
use crate::{Error, Pool, Tx};

/// The kind of an endpoint's signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `v1`: HMAC with SHA-256, of a secret that both sides know.
    Hmac,
    /// `v1a`: ed25519, whose public key anybody may know.
    Ed25519,
}

impl Kind {
    /// The word used in Postgres and over HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hmac => "hmac",
            Self::Ed25519 => "ed25519",
        }
    }

    /// The reverse of [`Kind::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Hmac, Self::Ed25519].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The secrets of an endpoint. `Debug` shows none.
#[derive(Clone, PartialEq, Eq)]
pub struct Signing {
    pub kind: Kind,
    pub secret: Vec<u8>,
    /// The one before the last rotation, while it still signs.
    pub old_secret: Option<Vec<u8>>,
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Signing {
    pub(super) fn read(kind: &str, secret: Vec<u8>, old_secret: Option<Vec<u8>>) -> Result<Self, Error> {
        let kind = Kind::parse(kind).ok_or_else(|| Error::Corrupt(format!("kind of secret `{kind}`")))?;
        Ok(Self { kind, secret, old_secret })
    }
}

/// How an endpoint does. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The first failure since the last success.
    pub failing_since_ms: Option<i64>,
    /// No delivery begins before then.
    pub paused_until_ms: Option<i64>,
    pub disabled_at_ms: Option<i64>,
    pub disabled_reason: Option<String>,
}

/// A registered endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub id: Uuid,
    pub version: i64,
    pub url: String,
    pub description: String,
    /// Types such as `job.failed`, groups such as `job.*`, or `*`.
    pub events: Vec<String>,
    /// Deliveries a second, at most.
    pub rate: Option<i32>,
    pub signing: Signing,
    /// Until then, the secret before the last rotation signs too.
    pub old_secret_until_ms: Option<i64>,
    pub created_at_ms: i64,
    pub updated_at_ms: i64,
    pub state: State,
}

/// An endpoint to be registered.
#[derive(Debug, Clone, Copy)]
pub struct NewEndpoint<'a> {
    pub id: Uuid,
    pub url: &'a str,
    pub description: &'a str,
    pub events: &'a [String],
    pub rate: Option<i32>,
    pub kind: Kind,
    pub secret: &'a [u8],
}

/// What a change sets.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    pub url: &'a str,
    pub description: &'a str,
    pub events: &'a [String],
    pub rate: Option<i32>,
}

/// The outcome of a change of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    Done,
    /// The tenant has no such endpoint.
    Unknown,
    /// It has another version by now.
    OtherVersion,
}

struct Row {
    id: Uuid,
    version: i64,
    url: String,
    description: String,
    events: Vec<String>,
    rate: Option<i32>,
    kind: String,
    secret: Vec<u8>,
    old_secret: Option<Vec<u8>>,
    old_secret_until_ms: Option<i64>,
    created_at_ms: i64,
    updated_at_ms: i64,
    failing_since_ms: Option<i64>,
    paused_until_ms: Option<i64>,
    disabled_at_ms: Option<i64>,
    disabled_reason: Option<String>,
}

impl Row {
    fn endpoint(self) -> Result<Endpoint, Error> {
        Ok(Endpoint {
            id: self.id,
            version: self.version,
            url: self.url,
            description: self.description,
            events: self.events,
            rate: self.rate,
            signing: Signing::read(&self.kind, self.secret, self.old_secret)?,
            old_secret_until_ms: self.old_secret_until_ms,
            created_at_ms: self.created_at_ms,
            updated_at_ms: self.updated_at_ms,
            state: State {
                failing_since_ms: self.failing_since_ms,
                paused_until_ms: self.paused_until_ms,
                disabled_at_ms: self.disabled_at_ms,
                disabled_reason: self.disabled_reason,
            },
        })
    }
}

/// Registers an endpoint, unless the tenant has so many already: then false.
pub async fn create(pool: &Pool, tenant: &str, new: NewEndpoint<'_>, endpoints_max: u32) -> Result<bool, Error> {
    let mut tx = pool.begin().await?;
    // Two that come at once count each other.
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('webhook_endpoints ' || $1, 0))", tenant)
        .execute(tx.raw())
        .await?;
    let created = sqlx::query!(
        "insert into ingest.webhook_endpoints (id, tenant, url, description, events, kind, secret, rate)
         select $1, $2, $3, $4, $5, $6, $7, $9
         where (select count(*) from ingest.webhook_endpoints where tenant = $2) < $8",
        new.id,
        tenant,
        new.url,
        new.description,
        new.events,
        new.kind.as_str(),
        new.secret,
        i64::from(endpoints_max),
        new.rate,
    )
    .execute(tx.raw())
    .await?;
    tx.commit().await?;
    Ok(created.rows_affected() == 1)
}

/// The tenant's endpoints, the oldest first.
pub async fn list(pool: &Pool, tenant: &str) -> Result<Vec<Endpoint>, Error> {
    read(pool, tenant, None).await
}

/// One of them.
pub async fn find(pool: &Pool, tenant: &str, id: Uuid) -> Result<Option<Endpoint>, Error> {
    Ok(read(pool, tenant, Some(id)).await?.pop())
}

async fn read(pool: &Pool, tenant: &str, id: Option<Uuid>) -> Result<Vec<Endpoint>, Error> {
    let rows = sqlx::query_file_as!(Row, "queries/webhook_endpoints.sql", tenant, id).fetch_all(pool.raw()).await?;
    rows.into_iter().map(Row::endpoint).collect()
}

/// Changes this version (none: whichever it is). Another URL is a new beginning.
pub async fn change(
    pool: &Pool,
    tenant: &str,
    (id, version): (Uuid, Option<i64>),
    to: Change<'_>,
) -> Result<Changed, Error> {
    let mut tx = pool.begin().await?;
    let done = sqlx::query!(
        "update ingest.webhook_endpoints
         set version = version + 1, epoch = epoch + (url <> $4)::integer,
             url = $4, description = $5, events = $6, rate = $7, updated_at = now()
         where tenant = $1 and id = $2 and ($3::bigint is null or version = $3)",
        tenant,
        id,
        version,
        to.url,
        to.description,
        to.events,
        to.rate,
    )
    .execute(tx.raw())
    .await?;
    conclude(pool, tx, tenant, id, done.rows_affected()).await
}

/// Takes this version away. Its deliveries go with the next upkeep.
pub async fn delete(pool: &Pool, tenant: &str, (id, version): (Uuid, Option<i64>)) -> Result<Changed, Error> {
    let mut tx = pool.begin().await?;
    let done = sqlx::query!(
        "delete from ingest.webhook_endpoints
         where tenant = $1 and id = $2 and ($3::bigint is null or version = $3)",
        tenant,
        id,
        version,
    )
    .execute(tx.raw())
    .await?;
    conclude(pool, tx, tenant, id, done.rows_affected()).await
}

/// Gives it another secret. For so long, the present one signs too.
pub async fn rotate(
    pool: &Pool,
    tenant: &str,
    (id, version): (Uuid, Option<i64>),
    secret: &[u8],
    overlap_ms: i64,
) -> Result<Changed, Error> {
    let mut tx = pool.begin().await?;
    let done = sqlx::query!(
        "update ingest.webhook_endpoints
         set version = version + 1, old_secret = secret, secret = $4, updated_at = now(),
             old_secret_until = now() + make_interval(secs => $5::bigint / 1000.0)
         where tenant = $1 and id = $2 and ($3::bigint is null or version = $3)",
        tenant,
        id,
        version,
        secret,
        overlap_ms,
    )
    .execute(tx.raw())
    .await?;
    conclude(pool, tx, tenant, id, done.rows_affected()).await
}

/// Lets deliveries go on, whatever happened before.
pub async fn enable(pool: &Pool, tenant: &str, id: Uuid) -> Result<Changed, Error> {
    let mut tx = pool.begin().await?;
    let done = sqlx::query!(
        "update ingest.webhook_endpoints set version = version + 1, epoch = epoch + 1, updated_at = now()
         where tenant = $1 and id = $2",
        tenant,
        id,
    )
    .execute(tx.raw())
    .await?;
    conclude(pool, tx, tenant, id, done.rows_affected()).await
}

async fn conclude(pool: &Pool, mut tx: Tx, tenant: &str, id: Uuid, rows: u64) -> Result<Changed, Error> {
    if rows == 0 {
        drop(tx);
        return Ok(if find(pool, tenant, id).await?.is_some() { Changed::OtherVersion } else { Changed::Unknown });
    }
    sqlx::query!("select pg_notify($1, '')", CHANNEL).execute(tx.raw()).await?;
    tx.commit().await?;
    Ok(Changed::Done)
}
