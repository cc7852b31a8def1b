//! `ingest.webhook_requests`: what somebody asks of the notifier. `notifier.webhook_requests` names those that are
//! done, in the transaction of their effect.

use std::time::Duration;

use uuid::Uuid;

use super::CHANNEL;
use crate::{Error, Pool, Role, Tx, retention};

/// Requests that are taken at once.
const TAKEN_MAX: i64 = 100;
/// Requests are kept for a while, and for longer by whoever must know that they are done.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
const KNOWN: Duration = Duration::from_secs(8 * 24 * 3_600);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A delivery that tells of nothing, to see whether it arrives.
    Ping,
    /// One delivery once more.
    Resend(Uuid),
    /// All that were given up since that time, in milliseconds since the Unix epoch.
    Recover { since_ms: i64 },
}

/// A request about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Of a ping: the id of its delivery, too.
    pub id: Uuid,
    pub endpoint: Uuid,
    pub action: Action,
}

/// A request, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub request: Request,
    pub tenant: String,
}

/// Asks for something at one of the tenant's endpoints. False: it has no such endpoint.
pub async fn ask(pool: &Pool, tenant: &str, request: Request) -> Result<bool, Error> {
    let (action, since_ms) = match request.action {
        Action::Ping => ("ping", None),
        Action::Resend(_) => ("resend", None),
        Action::Recover { since_ms } => ("recover", Some(since_ms)),
    };
    let mut tx = pool.begin().await?;
    let asked = sqlx::query!(
        "insert into ingest.webhook_requests (id, endpoint, action, since)
         select $1, id, $4, to_timestamp($5::bigint / 1000.0)
         from ingest.webhook_endpoints where tenant = $2 and id = $3",
        request.id,
        tenant,
        request.endpoint,
        action,
        since_ms,
    )
    .execute(tx.raw())
    .await?;
    told(tx, asked.rows_affected()).await
}

/// Asks for one of the tenant's deliveries to be sent once more. False: it has no such delivery, or the endpoint or the
/// job that it belongs to is no more.
pub async fn resend(pool: &Pool, tenant: &str, id: Uuid, delivery: Uuid) -> Result<bool, Error> {
    let mut tx = pool.begin().await?;
    let asked = sqlx::query!(
        "insert into ingest.webhook_requests (id, endpoint, action, delivery)
         select $1, delivery.endpoint, 'resend', delivery.id
         from notifier.deliveries as delivery
         where delivery.tenant = $2 and delivery.id = $3 and case
             when delivery.of_job then exists (select from ingest.job_webhooks where job = delivery.job)
             else exists (select from ingest.webhook_endpoints where id = delivery.endpoint)
         end",
        id,
        tenant,
        delivery,
    )
    .execute(tx.raw())
    .await?;
    told(tx, asked.rows_affected()).await
}

async fn told(mut tx: Tx, rows: u64) -> Result<bool, Error> {
    if rows == 0 {
        return Ok(false);
    }
    sqlx::query!("select pg_notify($1, '')", CHANNEL).execute(tx.raw()).await?;
    tx.commit().await?;
    Ok(true)
}

/// Takes requests that are not done, and does what one statement does: all but pings. Of two notifiers, one takes each.
pub async fn take(tx: &mut Tx) -> Result<Vec<Asked>, Error> {
    let rows = sqlx::query_file!("queries/take_webhook_requests.sql", TAKEN_MAX).fetch_all(tx.raw()).await?;
    let mut asked = Vec::with_capacity(rows.len());
    for row in rows {
        let action = match (row.action.as_str(), row.delivery, row.since_ms) {
            ("ping", ..) => Action::Ping,
            ("resend", Some(delivery), _) => Action::Resend(delivery),
            ("recover", _, Some(since_ms)) => Action::Recover { since_ms },
            (other, ..) => return Err(Error::Corrupt(format!("request `{other}` about a webhook"))),
        };
        let request = Request { id: row.id, endpoint: row.endpoint, action };
        asked.push(Asked { request, tenant: row.tenant });
    }
    for Asked { request, .. } in &asked {
        match request.action {
            Action::Ping => {}
            Action::Resend(delivery) => resend_one(tx, delivery).await?,
            Action::Recover { since_ms } => resend_failed(tx, request.endpoint, since_ms).await?,
        }
    }
    Ok(asked)
}

/// Makes a delivery due now, whatever became of it, unless an attempt is under way.
async fn resend_one(tx: &mut Tx, delivery: Uuid) -> Result<(), Error> {
    sqlx::query!(
        "update notifier.deliveries as delivery
         set status = 'pending', due_at = now(), failures = 0, ended_at = null
         where delivery.id = $1
             and (
                 delivery.status <> 'pending' or delivery.attempts = 0
                 or exists (
                     select from notifier.attempts as ended
                     where ended.delivery = delivery.id and ended.attempt = delivery.attempts
                 )
             )",
        delivery,
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// Makes all deliveries to the endpoint due now that were created since then and given up.
async fn resend_failed(tx: &mut Tx, endpoint: Uuid, since_ms: i64) -> Result<(), Error> {
    sqlx::query!(
        "update notifier.deliveries set status = 'pending', due_at = now(), failures = 0, ended_at = null
         where endpoint = $1 and id >= $2 and status = 'failed'",
        endpoint,
        retention::bound(since_ms),
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// Forgets old requests, as the role of the pool knows them.
pub async fn forget(pool: &Pool) -> Result<(), Error> {
    if pool.role() == Role::Ingest {
        sqlx::query!(
            "delete from ingest.webhook_requests where asked_at < now() - make_interval(secs => $1)",
            KEPT.as_secs_f64()
        )
        .execute(pool.raw())
        .await?;
    } else {
        sqlx::query!(
            "delete from notifier.webhook_requests where done_at < now() - make_interval(secs => $1)",
            KNOWN.as_secs_f64()
        )
        .execute(pool.raw())
        .await?;
    }
    Ok(())
}
