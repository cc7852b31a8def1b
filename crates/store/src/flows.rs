//! `ingest.flows`: every version of every flow that was applied; the highest revision of a flow is the active one.

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
        "insert into ingest.flows (flow, version, revision, document)
         values ($1, $2, nextval('ingest.flow_revisions'), $3)
         on conflict (flow, version) do update set revision = excluded.revision, applied_at = now()
         returning revision",
        flow,
        version,
        document,
    )
    .fetch_one(tx.raw())
    .await?;
    Ok(Applied::Changed { revision })
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
