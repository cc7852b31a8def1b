-- Takes up to $1 requests that are not done: their ids are noted as done.
with done as (
    insert into notifier.webhook_requests (id)
    select asked.id
    from ingest.webhook_requests as asked
    where not exists (select from notifier.webhook_requests as known where known.id = asked.id)
    order by asked.asked_at
    limit $1
    on conflict do nothing
    returning id
)
select
    asked.id as "id!",
    asked.endpoint as "endpoint!",
    asked.action as "action!",
    asked.delivery as "delivery?",
    (extract(epoch from asked.since) * 1000)::bigint as "since_ms?",
    coalesce(endpoint.tenant, delivery.tenant) as "tenant!"
from done
join ingest.webhook_requests as asked on asked.id = done.id
left join ingest.webhook_endpoints as endpoint on endpoint.id = asked.endpoint
left join notifier.deliveries as delivery on delivery.id = asked.delivery and delivery.of_job
where endpoint.id is not null or delivery.id is not null
order by asked.asked_at
