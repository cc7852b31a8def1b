-- The time in milliseconds until a delivery comes due, a lease runs out, a pause ends, or a rate allows one more. What
-- is due now and yet was not leased waits for one of these, or for the end of one that its own notifier has under way.
with recursive waiting as (
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
        greatest(
            state.paused_until,
            -- Several at once, where many are allowed.
            case when endpoint.rate is not null then
                (select next_at from notifier.paces as pace where pace.endpoint = endpoint.id)
                    + make_interval(secs => greatest(0.02, 1.0 / endpoint.rate))
            end
        ) as closed_until
    from waiting
    left join ingest.webhook_endpoints as endpoint on endpoint.id = waiting.endpoint
    left join notifier.endpoints as state
        on state.endpoint = waiting.endpoint and state.epoch = coalesce(endpoint.epoch, 1)
    where waiting.endpoint is not null and state.disabled_at is null
)
select ceil(extract(epoch from min(next.at) - clock_timestamp()) * 1000)::bigint as "due_in_ms?"
from open
cross join lateral (
    select greatest(delivery.due_at, open.closed_until) as at
    from notifier.deliveries as delivery
    where delivery.endpoint = open.id and delivery.status = 'pending' and delivery.of_job = open.is_of_jobs
        and delivery.due_at > case when open.closed_until > now() then '-infinity' else now() end
    order by delivery.due_at
    limit 1
) as next
