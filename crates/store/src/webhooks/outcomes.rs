//! What became of deliveries, and how their endpoints do.

use uuid::Uuid;

use super::Subscription;
use crate::{Error, Pool, Tx, partitions, retention};

/// Deliveries deleted in one statement.
const DELETED_MAX: i64 = 5_000;
/// The first and the longest pause of an endpoint that asks for fewer deliveries.
const PAUSE_FIRST_MS: i64 = 1_000;
const PAUSE_MAX_MS: i64 = 60_000;

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub delivery: Uuid,
    pub attempt: i32,
    pub duration_ms: i64,
    /// The status of the answer, if one came.
    pub status: Option<i32>,
    /// A short stable word; none: it was delivered.
    pub error: Option<&'static str>,
    /// For a person.
    pub detail: Option<String>,
    /// The first bytes of the answer.
    pub answer: Vec<u8>,
    /// The time until the next attempt; none: there is none.
    pub again_in_ms: Option<i64>,
}

/// What an attempt says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    pub endpoint: Uuid,
    pub epoch: i32,
    /// It has taken a delivery.
    pub is_well: bool,
    /// It asks for fewer deliveries.
    pub is_slow: bool,
    /// It names the time for which it wants none.
    pub pause_ms: i64,
    /// It wants none any more.
    pub is_gone: bool,
}

/// An endpoint that was disabled a moment ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disabled {
    pub endpoint: Uuid,
    pub tenant: String,
    pub url: String,
    /// `gone` or `failing`.
    pub reason: String,
}

/// The work that waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Deliveries that are neither made nor given up, of endpoints that are not disabled.
    pub pending: i64,
    /// The time for which the oldest one has been due, of endpoints that do well.
    pub due_age_ms: i64,
    pub disabled_endpoints: i64,
}

/// Records attempts, each of a lease. One whose lease has run out, and that somebody else has begun again, changes the
/// delivery only if it was delivered.
pub async fn record(tx: &mut Tx, outcomes: &[Outcome]) -> Result<(), Error> {
    let deliveries: Vec<Uuid> = outcomes.iter().map(|outcome| outcome.delivery).collect();
    let attempts: Vec<i32> = outcomes.iter().map(|outcome| outcome.attempt).collect();
    let durations: Vec<i64> = outcomes.iter().map(|outcome| outcome.duration_ms).collect();
    let statuses: Vec<Option<i32>> = outcomes.iter().map(|outcome| outcome.status).collect();
    let errors: Vec<Option<&str>> = outcomes.iter().map(|outcome| outcome.error).collect();
    let details: Vec<Option<&str>> = outcomes.iter().map(|outcome| outcome.detail.as_deref()).collect();
    let answers: Vec<&[u8]> = outcomes.iter().map(|outcome| outcome.answer.as_slice()).collect();
    let agains: Vec<Option<i64>> = outcomes.iter().map(|outcome| outcome.again_in_ms).collect();
    sqlx::query!(
        "insert into notifier.attempts (delivery, attempt, duration_ms, status, error, detail, answer)
         select *
         from unnest($1::uuid[], $2::integer[], $3::bigint[], $4::integer[], $5::text[], $6::text[], $7::bytea[])
         on conflict do nothing",
        &deliveries,
        &attempts,
        &durations,
        &statuses as &[Option<i32>],
        &errors as &[Option<&str>],
        &details as &[Option<&str>],
        &answers as &[&[u8]],
    )
    .execute(tx.raw())
    .await?;
    sqlx::query!(
        "update notifier.deliveries as delivery
         set status = case
                 when ended.error is null then 'delivered' when ended.again_in_ms is null then 'failed' else 'pending'
             end,
             failures = delivery.failures + (ended.error is not null)::integer,
             due_at = case
                 when ended.error is null or ended.again_in_ms is null then delivery.due_at
                 else now() + make_interval(secs => ended.again_in_ms / 1000.0)
             end,
             ended_at = case when ended.error is null or ended.again_in_ms is null then now() end
         from unnest($1::uuid[], $2::integer[], $3::text[], $4::bigint[])
             as ended (delivery, attempt, error, again_in_ms)
         where delivery.id = ended.delivery and delivery.status = 'pending'
             and (ended.error is null or delivery.attempts = ended.attempt)",
        &deliveries,
        &attempts,
        &errors as &[Option<&str>],
        &agains as &[Option<i64>],
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// Notes how endpoints do: of each, the last entry. A success ends what was wrong.
pub async fn rest(tx: &mut Tx, rests: &[Rest]) -> Result<(), Error> {
    let well: Vec<Uuid> = rests.iter().filter(|rest| rest.is_well).map(|rest| rest.endpoint).collect();
    sqlx::query!("delete from notifier.endpoints where endpoint = any($1) and disabled_at is null", &well)
        .execute(tx.raw())
        .await?;
    let mut ill: Vec<&Rest> = rests.iter().filter(|rest| !rest.is_well).collect();
    // In one order, so that two notifiers do not wait for each other.
    ill.sort_by_key(|rest| rest.endpoint);
    if ill.is_empty() {
        return Ok(());
    }
    let endpoints: Vec<Uuid> = ill.iter().map(|rest| rest.endpoint).collect();
    let epochs: Vec<i32> = ill.iter().map(|rest| rest.epoch).collect();
    let slow: Vec<bool> = ill.iter().map(|rest| rest.is_slow).collect();
    let pauses: Vec<i64> = ill.iter().map(|rest| rest.pause_ms).collect();
    sqlx::query!(
        "insert into notifier.endpoints as known (endpoint, epoch, failing_since, pause_ms, paused_until)
         select endpoint, epoch, now(), case when slow then $5::bigint else 0 end,
                case when slow or pause_ms > 0
                    then now() + make_interval(secs => greatest(pause_ms, case when slow then $5 else 0 end) / 1000.0)
                end
         from unnest($1::uuid[], $2::integer[], $3::boolean[], $4::bigint[]) as ill (endpoint, epoch, slow, pause_ms)
         order by endpoint
         on conflict (endpoint) do update
         set epoch = excluded.epoch,
             failing_since = case
                 when known.epoch = excluded.epoch then coalesce(known.failing_since, excluded.failing_since)
                 else excluded.failing_since
             end,
             pause_ms = case
                 when known.epoch <> excluded.epoch then excluded.pause_ms
                 when excluded.pause_ms > 0 then least(greatest(known.pause_ms * 2, excluded.pause_ms), $6)
                 else known.pause_ms
             end,
             -- A pause that somebody has asked for is kept, whatever else fails meanwhile.
             paused_until = case
                 when known.epoch <> excluded.epoch then excluded.paused_until
                 when excluded.pause_ms > 0 then greatest(
                     known.paused_until,
                     excluded.paused_until,
                     now() + make_interval(secs => least(greatest(known.pause_ms * 2, excluded.pause_ms), $6) / 1000.0)
                 )
                 else greatest(known.paused_until, excluded.paused_until)
             end,
             disabled_at = case when known.epoch = excluded.epoch then known.disabled_at end,
             disabled_reason = case when known.epoch = excluded.epoch then known.disabled_reason end
         where known.epoch <= excluded.epoch",
        &endpoints,
        &epochs,
        &slow,
        &pauses,
        PAUSE_FIRST_MS,
        PAUSE_MAX_MS,
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// Disables those of these endpoints that are gone, or that have failed for so long without a success.
pub async fn disable(tx: &mut Tx, rests: &[Rest], failing_max_ms: i64) -> Result<Vec<Disabled>, Error> {
    let ill: Vec<Uuid> = rests.iter().filter(|rest| !rest.is_well).map(|rest| rest.endpoint).collect();
    let gone: Vec<Uuid> = rests.iter().filter(|rest| rest.is_gone).map(|rest| rest.endpoint).collect();
    if ill.is_empty() {
        return Ok(Vec::new());
    }
    let disabled = sqlx::query_as!(
        Disabled,
        r#"update notifier.endpoints as state
           set disabled_at = now(),
               disabled_reason = case when state.endpoint = any($2) then 'gone' else 'failing' end
           from ingest.webhook_endpoints as endpoint
           where state.endpoint = any($1) and state.disabled_at is null
               and endpoint.id = state.endpoint and endpoint.epoch = state.epoch
               and (
                   state.endpoint = any($2)
                   or state.failing_since < now() - make_interval(secs => $3::bigint / 1000.0)
               )
           returning state.endpoint, endpoint.tenant, endpoint.url, state.disabled_reason as "reason!""#,
        &ill,
        &gone,
        failing_max_ms,
    )
    .fetch_all(tx.raw())
    .await?;
    Ok(disabled)
}

/// Deletes what is older than this, and what is known of endpoints that are no more. Returns the number of deliveries.
pub async fn retire(pool: &Pool, keep_ms: i64) -> Result<u64, Error> {
    let below = retention::bound(partitions::now_ms(pool).await? - keep_ms);
    let mut deleted = 0;
    loop {
        let gone = sqlx::query_scalar!(
            r#"with old as materialized (
                   select id from notifier.deliveries where id < $1 order by id limit $2
               ),
               gone as (delete from notifier.deliveries where id = any(array(select id from old))),
               attempts as (delete from notifier.attempts where delivery = any(array(select id from old)))
               select count(*) as "count!" from old"#,
            below,
            DELETED_MAX,
        )
        .fetch_one(pool.raw())
        .await?;
        deleted += gone.unsigned_abs();
        if gone < DELETED_MAX {
            break;
        }
    }
    // A receiver of jobs' own webhooks is known as long as something waits for it.
    sqlx::query!(
        "delete from notifier.endpoints as state
         where not exists (select from ingest.webhook_endpoints as known where known.id = state.endpoint)
             and not exists (
                 select from notifier.deliveries as delivery
                 where delivery.endpoint = state.endpoint and delivery.status = 'pending'
             )"
    )
    .execute(pool.raw())
    .await?;
    sqlx::query!(
        "delete from notifier.paces as pace
         where not exists (select from ingest.webhook_endpoints as known where known.id = pace.endpoint)"
    )
    .execute(pool.raw())
    .await?;
    Ok(deleted)
}

/// Counts the work that waits.
pub async fn figures(pool: &Pool) -> Result<Figures, Error> {
    let figures = sqlx::query_as!(
        Figures,
        r#"select
               coalesce(sum(waiting.pending), 0)::bigint as "pending!",
               greatest(
                   coalesce(
                       extract(
                           epoch from now() - min(waiting.due_at) filter (where state.failing_since is null)
                       ) * 1000, 0
                   ), 0
               )::bigint as "due_age_ms!",
               count(*) filter (where state.disabled_at is not null) as "disabled_endpoints!"
           from (
               select id, epoch from ingest.webhook_endpoints
               union all
               (select distinct endpoint, 1 from notifier.deliveries where status = 'pending' and of_job)
           ) as endpoint
           left join notifier.endpoints as state on state.endpoint = endpoint.id and state.epoch = endpoint.epoch
           left join lateral (
               select count(*) as pending, min(due_at) as due_at
               from notifier.deliveries as delivery
               where delivery.endpoint = endpoint.id and delivery.status = 'pending'
           ) as waiting on state.disabled_at is null"#
    )
    .fetch_one(pool.raw())
    .await?;
    Ok(figures)
}

impl Disabled {
    /// True if the subscription is of the same tenant, and of another endpoint: that one may be told.
    pub fn concerns(&self, subscription: &Subscription) -> bool {
        subscription.tenant == self.tenant && subscription.endpoint != self.endpoint
    }
}
