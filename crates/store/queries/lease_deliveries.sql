-- Leases due deliveries, $4 at most, to the caller for $5 seconds. The caller has $2 of each endpoint of $1 under way.
-- It wants $3 at once of one endpoint, and one of an endpoint that fails.
with open as (
    select
        endpoint.id,
        endpoint.epoch,
        endpoint.url,
        endpoint.kind,
        endpoint.secret,
        case when endpoint.old_secret_until > now() then endpoint.old_secret end as old_secret,
        greatest(
            case when state.failing_since is null then $3::bigint else 1 end - coalesce(busy.deliveries, 0), 0
        ) as room
    from ingest.webhook_endpoints as endpoint
    left join notifier.endpoints as state on state.endpoint = endpoint.id and state.epoch = endpoint.epoch
    left join unnest($1::uuid[], $2::integer[]) as busy (endpoint, deliveries) on busy.endpoint = endpoint.id
    where state.disabled_at is null and (state.paused_until is null or state.paused_until <= now())
),
found as materialized (
    select due.id, due.due_at, open.id as endpoint
    from open
    cross join lateral (
        select delivery.id, delivery.due_at
        from notifier.deliveries as delivery
        where delivery.endpoint = open.id and delivery.status = 'pending' and delivery.due_at <= now()
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
    select id
    from (
        select id, due_at, row_number() over (partition by endpoint order by due_at) as turn from found
    ) as in_turn
    order by turn, due_at
    limit $4
),
leased as (
    update notifier.deliveries as delivery
    set due_at = now() + make_interval(secs => $5), attempts = delivery.attempts + 1
    from chosen
    where delivery.id = chosen.id
    returning
        delivery.id, delivery.ordinal, delivery.endpoint, delivery.job, delivery.type, delivery.body,
        delivery.traceparent, delivery.attempts, delivery.failures
)
select
    leased.id as "id!",
    leased.endpoint as "endpoint!",
    open.epoch as "epoch!",
    open.url as "url!",
    open.kind as "signature!",
    open.secret as "secret!",
    open.old_secret as "old_secret?",
    leased.job as "job?",
    leased.type as "kind!",
    leased.body as "body!",
    leased.traceparent as "traceparent?",
    leased.attempts as "attempt!",
    leased.failures as "failures!"
from leased
join open on open.id = leased.endpoint
order by leased.ordinal
