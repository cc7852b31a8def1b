//! `ingest.flows`: versions of flows that were applied; the highest revision of a flow is the active one.

use events::time::DAY_MS;
use flow::definition::parse_duration_ms;

use crate::retention::bound;
use crate::{Error, Pool, Tx};

/// A stored version of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedFlow {
    /// The flow's name.
    pub flow: String,
    /// Its version (content address).
    pub version: String,
    /// Rises with every application.
    pub revision: i64,
    /// The canonical JSON of the definition.
    pub document: String,
    /// The time at which it was applied last, in milliseconds since the Unix epoch.
    pub applied_at_ms: i64,
}

/// The outcome of [`apply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// This version is active now, under a new revision: tell Kafka in the same transaction.
    Changed {
        /// The new revision.
        revision: i64,
    },
    /// It was active already.
    Unchanged {
        /// Its revision.
        revision: i64,
    },
}

/// Makes this version the active one of its flow. Appliers take turns, so that revisions rise in commit order.
pub async fn apply(tx: &mut Tx, flow: &str, version: &str, document: &str) -> Result<Applied, Error> {
    sqlx::query!("lock table ingest.flows in share row exclusive mode").execute(tx.raw()).await?;
    let active = sqlx::query!(
        "select version, revision from ingest.flows where flow = $1 order by revision desc limit 1",
        flow,
    )
    .fetch_optional(tx.raw())
    .await?;
    if let Some(active) = active.filter(|active| active.version == version) {
        return Ok(Applied::Unchanged { revision: active.revision });
    }
    let revision = sqlx::query_scalar!(
        "insert into ingest.flows (flow, version, revision, document, keep_s)
         values ($1, $2, nextval('ingest.flow_revisions'), $3, $4)
         on conflict (flow, version) do update set
            revision = excluded.revision, applied_at = now(), keep_s = excluded.keep_s
         returning revision",
        flow,
        version,
        document,
        keep_s(document),
    )
    .fetch_one(tx.raw())
    .await?;
    Ok(Applied::Changed { revision })
}

/// The `retention` of a document, in seconds.
fn keep_s(document: &str) -> Option<i64> {
    let document: serde_json::Value = serde_json::from_str(document).ok()?;
    let retention_ms = parse_duration_ms(document["retention"].as_str()?)?;
    i64::try_from(retention_ms / 1_000).ok()
}

/// A version that was forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetiredFlow {
    /// The flow's name.
    pub flow: String,
    /// Its version.
    pub version: String,
}

/// Forgets at most `versions_max` versions that another one has replaced more than `keep_ms` and a day ago, and that no
/// job is on whose acceptance is kept; tell Kafka in the same transaction. The day is for instances of ingest that have
/// not heard of the newer version. Of acceptances, those are looked through that are older than `keep_ms`: retention
/// has left a few of them, of jobs that have not ended.
pub async fn retire(tx: &mut Tx, keep_ms: i64, versions_max: u32) -> Result<Vec<RetiredFlow>, Error> {
    let now_ms = sqlx::query_scalar!(r#"select (extract(epoch from now()) * 1000)::bigint as "ms!""#)
        .fetch_one(tx.raw())
        .await?;
    let kept_from_ms = now_ms - keep_ms;
    // Whoever makes a version active again comes before, or makes it anew.
    sqlx::query!("lock table ingest.flows in share row exclusive mode").execute(tx.raw()).await?;
    let retired = sqlx::query_as!(
        RetiredFlow,
        "delete from ingest.flows where revision in (
            select old.revision from ingest.flows as old
            where (
                select min(newer.applied_at) from ingest.flows as newer
                where newer.flow = old.flow and newer.revision > old.revision
            ) < to_timestamp($1::bigint / 1000.0)
            and not exists (
                select from ingest.acceptances as accepted
                where accepted.job < $2 and accepted.flow = old.flow and accepted.version = old.version
            )
            order by old.revision limit $3
         ) returning flow, version",
        kept_from_ms - DAY_MS,
        bound(kept_from_ms),
        i64::from(versions_max),
    )
    .fetch_all(tx.raw())
    .await?;
    Ok(retired)
}

/// Every version of every flow, oldest revision first.
pub async fn all(pool: &Pool) -> Result<Vec<AppliedFlow>, Error> {
    let flows = sqlx::query_as!(
        AppliedFlow,
        r#"select flow, version, revision, document,
                  (extract(epoch from applied_at) * 1000)::bigint as "applied_at_ms!"
           from ingest.flows order by revision"#,
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(flows)
}
