-- The endpoints of the tenant $1, or the one with the id $2. An old secret is told while it signs.
select
    endpoint.id,
    endpoint.version,
    endpoint.url,
    endpoint.description,
    endpoint.events,
    endpoint.rate,
    endpoint.kind,
    endpoint.secret,
    case when endpoint.old_secret_until > now() then endpoint.old_secret end as "old_secret?",
    case
        when endpoint.old_secret_until > now() then (extract(epoch from endpoint.old_secret_until) * 1000)::bigint
    end as "old_secret_until_ms?",
    (extract(epoch from endpoint.created_at) * 1000)::bigint as "created_at_ms!",
    (extract(epoch from endpoint.updated_at) * 1000)::bigint as "updated_at_ms!",
    (extract(epoch from state.failing_since) * 1000)::bigint as "failing_since_ms?",
    case
        when state.paused_until > now() then (extract(epoch from state.paused_until) * 1000)::bigint
    end as "paused_until_ms?",
    (extract(epoch from state.disabled_at) * 1000)::bigint as "disabled_at_ms?",
    state.disabled_reason as "disabled_reason?"
from ingest.webhook_endpoints as endpoint
left join notifier.endpoints as state on state.endpoint = endpoint.id and state.epoch = endpoint.epoch
where endpoint.tenant = $1 and ($2::uuid is null or endpoint.id = $2)
order by endpoint.id
