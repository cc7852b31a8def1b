//! `ingest.job_webhooks`: the webhooks that requests ask for their own jobs. [`crate::acceptances`] stores them.
//!
//! Their deliveries stand beside those of endpoints (`of_job`). The receiver is to them what an endpoint is to others,
//! but that nothing disables it: an answer 410 ends the webhook of one job.

use std::fmt;

use flow::id::JobId;
use uuid::Uuid;

use crate::{Error, Pool, Tx, partitions, retention};

/// Rows deleted in one statement.
const DELETED_MAX: i64 = 10_000;

/// A webhook for one job. `Debug` does not show its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JobWebhook {
    /// The tenant and the host in one: the same for all of the tenant's webhooks that lead there.
    pub receiver: Uuid,
    pub url: String,
    /// Types such as `job.failed`, groups such as `job.*`, or `*`.
    pub events: Vec<String>,
    /// The key of HMAC; none: deliveries are not signed.
    pub secret: Option<Vec<u8>>,
}

impl JobWebhook {
    /// The bytes that it takes, roughly.
    pub fn size_bytes(&self) -> usize {
        let events: usize = self.events.iter().map(String::len).sum();
        self.url.len() + events + self.secret.as_ref().map_or(0, Vec::len)
    }
}

impl fmt::Debug for JobWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobWebhook").field("events", &self.events).finish_non_exhaustive()
    }
}

/// The events that a job's own webhook wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSubscription {
    pub job: Uuid,
    pub receiver: Uuid,
    pub events: Vec<String>,
}

/// The webhook of one job, which the caller has found for its tenant.
pub async fn of_job(pool: &Pool, job: JobId) -> Result<Option<JobWebhook>, Error> {
    let found = sqlx::query_as!(
        JobWebhook,
        "select receiver, url, events, secret from ingest.job_webhooks where job = $1",
        job.uuid()
    )
    .fetch_optional(pool.raw())
    .await?;
    Ok(found)
}

/// Those of these jobs that have a webhook which its receiver has not ended.
pub async fn of_jobs(pool: &Pool, jobs: &[Uuid]) -> Result<Vec<JobSubscription>, Error> {
    let found = sqlx::query_as!(
        JobSubscription,
        "select webhook.job, webhook.receiver, webhook.events
         from ingest.job_webhooks as webhook
         where webhook.job = any($1) and not exists (
             select from notifier.deliveries as delivery
             join notifier.attempts as attempt on attempt.delivery = delivery.id
             where delivery.job = webhook.job and delivery.of_job and delivery.status = 'failed'
                 and attempt.error = 'gone'
         )",
        jobs,
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(found)
}

/// Gives up what waits for the webhooks of these jobs: their receivers want no more of it.
pub async fn end_of_jobs(tx: &mut Tx, jobs: &[Uuid]) -> Result<(), Error> {
    sqlx::query!(
        "update notifier.deliveries set status = 'failed', ended_at = now()
         where job = any($1) and of_job and status = 'pending'",
        jobs,
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// Deletes the webhooks of jobs that were accepted longer ago than this and are no longer kept.
pub async fn forget_of_jobs(pool: &Pool, keep_ms: i64) -> Result<(), Error> {
    let below = retention::bound(partitions::now_ms(pool).await? - keep_ms);
    loop {
        let gone = sqlx::query!(
            "delete from ingest.job_webhooks where job = any(array(
                 select webhook.job from ingest.job_webhooks as webhook
                 where webhook.job < $1
                     and not exists (select from ingest.acceptances as kept where kept.job = webhook.job)
                 order by webhook.job limit $2
             ))",
            below,
            DELETED_MAX,
        )
        .execute(pool.raw())
        .await?;
        if gone.rows_affected() < DELETED_MAX.unsigned_abs() {
            return Ok(());
        }
    }
}
