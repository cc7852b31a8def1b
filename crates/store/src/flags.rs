//! `ingest.flags`: every version of every flow's flags; the highest one holds. Versions are only ever added.
//!
//! A change is told to all instances by a notification inside its transaction: operators write, so it is rare.

use crate::{Error, Listener, Pool};

/// The channel on which instances listen.
const CHANNEL: &str = "meanwhile_flags";

/// A version of a flow's flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagsVersion {
    pub flow: String,
    /// From 1 on.
    pub version: i64,
    /// JSON.
    pub document: String,
    pub changed_by: String,
    pub reason: String,
    /// The version that was gone back to.
    pub rollback_to: Option<i64>,
    /// Milliseconds since the Unix epoch.
    pub changed_at_ms: i64,
}

/// A version to be added.
#[derive(Debug, Clone, Copy)]
pub struct NewFlags<'a> {
    pub flow: &'a str,
    pub document: &'a str,
    pub changed_by: &'a str,
    pub reason: &'a str,
    pub rollback_to: Option<i64>,
}

/// Adds a version, and tells all instances, if the present version is still that one (0: there is none). None if it is
/// another one: nothing is stored then. A repeated call finds the version that it has added.
pub async fn add(pool: &Pool, new: NewFlags<'_>, present: i64) -> Result<Option<FlagsVersion>, Error> {
    let mut tx = pool.begin().await?;
    let added = sqlx::query_as!(
        FlagsVersion,
        r#"insert into ingest.flags (flow, version, document, changed_by, reason, rollback_to)
           select $1, $2::bigint + 1, $3, $4, $5, $6
           where coalesce((select max(version) from ingest.flags where flow = $1), 0) = $2::bigint
           on conflict (flow, version) do nothing
           returning flow, version, document, changed_by, reason, rollback_to,
                     (extract(epoch from changed_at) * 1000)::bigint as "changed_at_ms!""#,
        new.flow,
        present,
        new.document,
        new.changed_by,
        new.reason,
        new.rollback_to,
    )
    .fetch_optional(tx.raw())
    .await?;
    let Some(added) = added else {
        drop(tx);
        let is_same = |found: &FlagsVersion| {
            (found.version, found.document.as_str(), found.changed_by.as_str(), found.reason.as_str())
                == (present + 1, new.document, new.changed_by, new.reason)
        };
        return Ok(history(pool, new.flow, None, 1).await?.into_iter().next().filter(is_same));
    };
    sqlx::query!("select pg_notify($1, $2)", CHANNEL, new.flow).execute(tx.raw()).await?;
    tx.commit().await?;
    Ok(Some(added))
}

/// The present version of every flow that has one, by name.
pub async fn all(pool: &Pool) -> Result<Vec<FlagsVersion>, Error> {
    let flags = sqlx::query_as!(
        FlagsVersion,
        r#"select distinct on (flow) flow, version, document, changed_by, reason, rollback_to,
                  (extract(epoch from changed_at) * 1000)::bigint as "changed_at_ms!"
           from ingest.flags order by flow, version desc"#,
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(flags)
}

/// The versions of a flow's flags, the latest first: at most so many, those below `before` if there is such a bound.
pub async fn history(
    pool: &Pool,
    flow: &str,
    before: Option<i64>,
    versions_max: u32,
) -> Result<Vec<FlagsVersion>, Error> {
    let versions = sqlx::query_as!(
        FlagsVersion,
        r#"select flow, version, document, changed_by, reason, rollback_to,
                  (extract(epoch from changed_at) * 1000)::bigint as "changed_at_ms!"
           from ingest.flags where flow = $1 and version < $2 order by version desc limit $3"#,
        flow,
        before.unwrap_or(i64::MAX),
        i64::from(versions_max),
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(versions)
}

/// Hears of changes.
pub async fn listen(pool: &Pool) -> Result<Listener, Error> {
    Listener::on(pool, CHANNEL).await
}
