-- Leases due deliveries, $4 at most, to the caller for $5 seconds. The caller has $2 of each endpoint of $1 under way.
-- It wants $3 at once of one endpoint, and one of an endpoint that fails. A receiver of jobs' own webhooks counts as an
-- endpoint.
with recursive waiting as (
    -- One step of the index for each that has something pending.
    (select endpoint from notifier.deliveries where status = 'pending' order by endpoint limit 1)
    union all
    select (
        select next.endpoint from notifier.deliveries as next
        where next.status = 'pending' and next.endpoint > waiting.endpoint
        order by next.endpoint limit 1
    )
    from waiting where waiting.endpoint is not null
),
open as (
    select
        waiting.endpoint as id,
        endpoint.id is null as is_of_jobs,
        coalesce(endpoint.epoch, 1) as epoch,
        endpoint.url,
        endpoint.kind,
        endpoint.secret,
        case when endpoint.old_secret_until > now() then endpoint.old_secret end as old_secret,
        endpoint.rate,
        pace.unused,
        greatest(
            least(
                case when state.failing_since is null then $3::bigint else 1 end - coalesce(busy.deliveries, 0),
                -- A tiny part more: the time of one delivery is rounded.
                floor(extract(epoch from pace.unused) * endpoint.rate + 0.001)::bigint
            ), 0
        ) as room
    from waiting
    left join ingest.webhook_endpoints as endpoint on endpoint.id = waiting.endpoint
    left join notifier.endpoints as state
        on state.endpoint = waiting.endpoint and state.epoch = coalesce(endpoint.epoch, 1)
    left join unnest($1::uuid[], $2::integer[]) as busy (endpoint, deliveries) on busy.endpoint = waiting.endpoint
    -- What a rate has left unused counts for a tenth of a second, or the time of one delivery.
    left join lateral (
        select least(
            now() - (select pace.next_at from notifier.paces as pace where pace.endpoint = endpoint.id),
            make_interval(secs => greatest(0.1, 1.0 / endpoint.rate))
        ) as unused
    ) as pace on endpoint.rate is not null
    where waiting.endpoint is not null and state.disabled_at is null
        and (state.paused_until is null or state.paused_until <= now())
),
found as materialized (
    select due.id, due.due_at, open.id as endpoint
    from open
    cross join lateral (
        select delivery.id, delivery.due_at
        from notifier.deliveries as delivery
        where delivery.endpoint = open.id and delivery.status = 'pending' and delivery.due_at <= now()
            and delivery.of_job = open.is_of_jobs
            and (
                not delivery.of_job
                or exists (select from ingest.job_webhooks as webhook where webhook.job = delivery.job)
            )
            and not exists (
                select from notifier.deliveries as earlier
                where earlier.endpoint = delivery.endpoint and earlier.job = delivery.job
                    and earlier.status = 'pending' and earlier.ordinal < delivery.ordinal
            )
        order by delivery.due_at
        limit open.room
        for update skip locked
    ) as due
),
-- The first of each endpoint, then the second of each: whoever has much to be told waits no longer for that.
chosen as (
    select id, endpoint
    from (
        select id, endpoint, due_at, row_number() over (partition by endpoint order by due_at) as turn from found
    ) as in_turn
    order by turn, due_at
    limit $4
),
taken as (
    select
        open.id as endpoint,
        now() - open.unused as since,
        make_interval(secs => count(*) / open.rate::float8) as used
    from chosen
    join open on open.id = chosen.endpoint
    where open.rate is not null
    group by open.id, open.unused, open.rate
),
-- Two notifiers that take at the same time are added up.
paced as (
    insert into notifier.paces as pace (endpoint, next_at)
    select endpoint, since + used from taken order by endpoint
    on conflict (endpoint) do update
    set next_at = greatest(pace.next_at, (select since from taken where taken.endpoint = pace.endpoint))
        + (select used from taken where taken.endpoint = pace.endpoint)
),
leased as (
    update notifier.deliveries as delivery
    set due_at = now() + make_interval(secs => $5), attempts = delivery.attempts + 1
    from chosen
    where delivery.id = chosen.id
    returning
        delivery.id, delivery.ordinal, delivery.endpoint, delivery.job, delivery.type, delivery.body,
        delivery.traceparent, delivery.attempts, delivery.failures, delivery.of_job
)
select
    leased.id as "id!",
    leased.endpoint as "endpoint!",
    leased.of_job as "of_job!",
    open.epoch as "epoch!",
    coalesce(open.url, webhook.url) as "url!",
    coalesce(open.kind, 'hmac') as "signature!",
    coalesce(open.secret, webhook.secret) as "secret?",
    open.old_secret as "old_secret?",
    leased.job as "job?",
    leased.type as "kind!",
    leased.body as "body!",
    leased.traceparent as "traceparent?",
    leased.attempts as "attempt!",
    leased.failures as "failures!"
from leased
join open on open.id = leased.endpoint
left join ingest.job_webhooks as webhook on leased.of_job and webhook.job = leased.job
order by leased.ordinal
