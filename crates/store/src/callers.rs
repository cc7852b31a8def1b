//! `ingest.callers`: how often callers have used each form of a flow's own address, by day (UTC).

use crate::{Error, Pool};

/// Requests of a caller, to be added to those of its day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    pub flow: String,
    pub tenant: String,
    pub caller: String,
    /// `sync`, `async` or `proxy`.
    pub form: &'static str,
    pub requests: u64,
    /// Milliseconds since the Unix epoch.
    pub last_seen_ms: i64,
}

/// The requests of a caller on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// `2027-01-05`
    pub day: String,
    pub caller: String,
    pub form: String,
    pub requests: i64,
    /// Milliseconds since the Unix epoch.
    pub last_seen_ms: i64,
}

/// Adds these requests up, all or none; none, too, where this is dropped before its end. They are one row for each
/// flow, tenant, day, caller and form, at most.
pub async fn add(pool: &Pool, used: &[Used]) -> Result<(), Error> {
    let texts = |of: fn(&Used) -> &str| used.iter().map(|used| of(used).to_owned()).collect::<Vec<_>>();
    let requests: Vec<i64> = used.iter().map(|used| i64::try_from(used.requests).unwrap_or(i64::MAX)).collect();
    let seen_ms: Vec<i64> = used.iter().map(|used| used.last_seen_ms).collect();
    // A statement alone would go on without whoever waits for it.
    let mut tx = pool.begin().await?;
    // In one order, so that two instances do not wait for each other.
    sqlx::query!(
        "insert into ingest.callers as known (flow, tenant, day, caller, form, requests, last_seen)
         select flow, tenant, (to_timestamp(seen_ms / 1000.0) at time zone 'UTC')::date, caller, form,
                sum(requests)::bigint, to_timestamp(max(seen_ms) / 1000.0)
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
              as used (flow, tenant, caller, form, requests, seen_ms)
         group by 1, 2, 3, 4, 5 order by 1, 2, 3, 4, 5
         on conflict (flow, tenant, day, caller, form) do update
         set requests = known.requests + excluded.requests, last_seen = greatest(known.last_seen, excluded.last_seen)",
        &texts(|used| &used.flow),
        &texts(|used| &used.tenant),
        &texts(|used| &used.caller),
        &texts(|used| used.form),
        &requests,
        &seen_ms,
    )
    .execute(tx.raw())
    .await?;
    tx.commit().await
}

/// Those who have used a flow's own address in the last `days`, the latest day first: at most so many rows.
pub async fn list(pool: &Pool, tenant: &str, flow: &str, days: u32, rows_max: u32) -> Result<Vec<Usage>, Error> {
    let usage = sqlx::query_as!(
        Usage,
        r#"select day::text as "day!", caller, form, requests,
                  (extract(epoch from last_seen) * 1000)::bigint as "last_seen_ms!"
           from ingest.callers
           where flow = $1 and tenant = $2 and day > (now() at time zone 'UTC')::date - $3::int
           order by day desc, requests desc, caller, form limit $4"#,
        flow,
        tenant,
        i32::try_from(days).unwrap_or(i32::MAX),
        i64::from(rows_max),
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(usage)
}

/// The flows whose synchronous form somebody has used in the last `days`, whichever the tenant.
pub async fn flows_in_use(pool: &Pool, days: u32) -> Result<Vec<String>, Error> {
    let flows = sqlx::query_scalar!(
        "select distinct flow from ingest.callers
         where form in ('sync', 'proxy') and day > (now() at time zone 'UTC')::date - $1::int",
        i32::try_from(days).unwrap_or(i32::MAX),
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(flows)
}

/// Forgets what is older than so many days.
pub async fn purge(pool: &Pool, days: u32) -> Result<u64, Error> {
    let purged = sqlx::query!(
        "delete from ingest.callers where day <= (now() at time zone 'UTC')::date - $1::int",
        i32::try_from(days).unwrap_or(i32::MAX),
    )
    .execute(pool.raw())
    .await?;
    Ok(purged.rows_affected())
}
