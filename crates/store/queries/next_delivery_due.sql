-- The time in milliseconds until a delivery comes due, a lease runs out, or a pause ends. What is due now and yet was
-- not leased waits for one of these, or for the end of one that its own notifier has under way.
select ceil(extract(epoch from min(next.at) - clock_timestamp()) * 1000)::bigint as "due_in_ms?"
from ingest.webhook_endpoints as endpoint
left join notifier.endpoints as state on state.endpoint = endpoint.id and state.epoch = endpoint.epoch
cross join lateral (
    select greatest(delivery.due_at, state.paused_until) as at
    from notifier.deliveries as delivery
    where delivery.endpoint = endpoint.id and delivery.status = 'pending'
        and (delivery.due_at > now() or state.paused_until > now())
    order by delivery.due_at
    limit 1
) as next
where state.disabled_at is null
