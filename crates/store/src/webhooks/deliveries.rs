//! `notifier.deliveries`: one row for each event and endpoint, or webhook of the job itself. A delivery that is under
//! way is one whose `due_at` lies at the end of its lease: if its notifier dies, it is due again.

use std::time::Duration;

use uuid::Uuid;

use super::endpoints::Signing;
use crate::{Error, Pool, Tx};

/// What an endpoint wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub endpoint: Uuid,
    pub tenant: String,
    pub events: Vec<String>,
}

/// A delivery to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    pub id: Uuid,
    pub endpoint: Uuid,
    /// To the job's own webhook: `endpoint` is its receiver.
    pub of_job: bool,
    pub tenant: String,
    pub job: Option<Uuid>,
    pub kind: String,
    pub body: Vec<u8>,
    pub traceparent: Option<String>,
}

/// A delivery whose time has come; it is leased to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub id: Uuid,
    pub endpoint: Uuid,
    /// To the job's own webhook: `endpoint` is its receiver.
    pub of_job: bool,
    /// The epoch of the endpoint at this time.
    pub epoch: i32,
    pub url: String,
    /// None: the job's own webhook has no secret.
    pub signing: Option<Signing>,
    pub job: Option<Uuid>,
    pub kind: String,
    pub body: Vec<u8>,
    pub traceparent: Option<String>,
    /// The number of this attempt, from 1 on.
    pub attempt: i32,
    /// Failures before it.
    pub failures: i32,
}

/// The room for deliveries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leased {
    /// At most so many.
    pub deliveries_max: u32,
    /// At most so many at once to one endpoint; to one that fails, one.
    pub per_endpoint_max: u32,
    /// The time after which they are due again.
    pub lease: Duration,
    /// Endpoints, and how many of their deliveries are under way.
    pub busy: Vec<(Uuid, u32)>,
}

/// All endpoints, with what they want to hear of. Disabled ones too: what they miss is sent once they are enabled.
pub async fn subscriptions(pool: &Pool) -> Result<Vec<Subscription>, Error> {
    let found = sqlx::query_as!(
        Subscription,
        "select id as endpoint, tenant, events from ingest.webhook_endpoints order by id"
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(found)
}

/// Adds deliveries, in this order.
pub async fn insert(tx: &mut Tx, deliveries: &[NewDelivery]) -> Result<(), Error> {
    let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.id).collect();
    let endpoints: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.endpoint).collect();
    let of_jobs: Vec<bool> = deliveries.iter().map(|delivery| delivery.of_job).collect();
    let tenants: Vec<String> = deliveries.iter().map(|delivery| delivery.tenant.clone()).collect();
    let jobs: Vec<Option<Uuid>> = deliveries.iter().map(|delivery| delivery.job).collect();
    let kinds: Vec<String> = deliveries.iter().map(|delivery| delivery.kind.clone()).collect();
    let bodies: Vec<&[u8]> = deliveries.iter().map(|delivery| delivery.body.as_slice()).collect();
    let traces: Vec<Option<String>> = deliveries.iter().map(|delivery| delivery.traceparent.clone()).collect();
    sqlx::query!(
        "insert into notifier.deliveries (id, endpoint, tenant, job, type, body, traceparent, of_job)
         select id, endpoint, tenant, job, type, body, traceparent, of_job
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::bytea[], $7::text[], $8::boolean[])
             with ordinality as new (id, endpoint, tenant, job, type, body, traceparent, of_job, place)
         order by place",
        &ids,
        &endpoints,
        &tenants,
        &jobs as &[Option<Uuid>],
        &kinds,
        &bodies as &[&[u8]],
        &traces as &[Option<String>],
        &of_jobs,
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

struct Row {
    id: Uuid,
    endpoint: Uuid,
    of_job: bool,
    epoch: i32,
    url: String,
    signature: String,
    secret: Option<Vec<u8>>,
    old_secret: Option<Vec<u8>>,
    job: Option<Uuid>,
    kind: String,
    body: Vec<u8>,
    traceparent: Option<String>,
    attempt: i32,
    failures: i32,
}

/// Takes deliveries that are due, each endpoint in its turn. Those of one job at one endpoint come one after the other.
pub async fn lease(pool: &Pool, room: &Leased) -> Result<Vec<Due>, Error> {
    let (endpoints, counts): (Vec<Uuid>, Vec<i32>) =
        room.busy.iter().map(|(endpoint, count)| (*endpoint, i32::try_from(*count).unwrap_or(i32::MAX))).unzip();
    let rows = sqlx::query_file_as!(
        Row,
        "queries/lease_deliveries.sql",
        &endpoints,
        &counts,
        i64::from(room.per_endpoint_max),
        i64::from(room.deliveries_max),
        room.lease.as_secs_f64(),
    )
    .fetch_all(pool.raw())
    .await?;
    let due = |row: Row| {
        Ok(Due {
            id: row.id,
            endpoint: row.endpoint,
            of_job: row.of_job,
            epoch: row.epoch,
            url: row.url,
            signing: row.secret.map(|secret| Signing::read(&row.signature, secret, row.old_secret)).transpose()?,
            job: row.job,
            kind: row.kind,
            body: row.body,
            traceparent: row.traceparent,
            attempt: row.attempt,
            failures: row.failures,
        })
    };
    rows.into_iter().map(due).collect()
}

/// The time until something may be due that is not now; none: nothing is under way and nothing waits.
pub async fn next_due(pool: &Pool) -> Result<Option<Duration>, Error> {
    let due_in_ms = sqlx::query_file_scalar!("queries/next_delivery_due.sql").fetch_one(pool.raw()).await?;
    Ok(due_in_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default())))
}
