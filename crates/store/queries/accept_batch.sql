-- One statement, so one round trip and, without a transaction around it, one commit.
-- $1-$12: the acceptances; $13-$16: their idempotency keys (null: none);
-- $17-$21: their records, each with the job that it belongs to; $22-$26: the webhooks that some ask for their jobs, the
-- types of events with spaces between them; $27: who has submitted each job.
with asked as (
    select *
    from unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bigint[], $9::bigint[],
        $10::integer[], $11::text[], $12::uuid[], $13::text[], $14::text[], $15::bytea[], $16::bigint[],
        $27::text[]
    ) with ordinality as asked (
        job, tenant, flow, version, key, correlation_id, input, accepted_at_ms, deadline_ms,
        steps_total, trace_id, retry_of, route, idempotency_key, fingerprint, retention_ms,
        submitted_by, ordinal
    )
),
-- Whoever holds the key comes back, whether it was there, was being written by another transaction (this waits for it),
-- had expired (it is taken over) or is new. Sorted, so that two batches cannot deadlock.
reserved as (
    insert into ingest.idempotency as held (tenant, route, key, fingerprint, job, expires_at)
    select tenant, route, idempotency_key, fingerprint, job, now() + retention_ms * interval '1 millisecond'
    from asked
    where idempotency_key is not null
    order by tenant, route, idempotency_key
    on conflict (tenant, route, key) do update set
        fingerprint = case when held.expires_at <= now() then excluded.fingerprint else held.fingerprint end,
        job = case when held.expires_at <= now() then excluded.job else held.job end,
        expires_at = case when held.expires_at <= now() then excluded.expires_at else held.expires_at end
    returning tenant, route, key, fingerprint, job
),
-- A job that is there already is this very batch, sent again because its first outcome was unknown.
accepted as (
    insert into ingest.acceptances (
        job, tenant, flow, version, key, correlation_id, input,
        accepted_at, deadline, steps_total, trace_id, retry_of, submitted_by
    )
    select
        job, tenant, flow, version, key, correlation_id, input,
        to_timestamp(accepted_at_ms / 1000.0), to_timestamp(deadline_ms / 1000.0), steps_total, trace_id, retry_of,
        submitted_by
    from asked
    where idempotency_key is null or job in (select job from reserved)
    order by ordinal
    on conflict (job) do nothing
    returning job
),
appended as (
    insert into outbox.messages (topic, key, value, headers)
    select topic, key, value, headers
    from unnest($17::uuid[], $18::text[], $19::bytea[], $20::bytea[], $21::bytea[]) with ordinality
        as record (job, topic, key, value, headers, ordinal)
    where job in (select job from accepted)
    order by ordinal
),
told as (
    insert into ingest.job_webhooks (job, receiver, url, events, secret)
    select job, receiver, url, string_to_array(events, ' '), secret
    from unnest($22::uuid[], $23::uuid[], $24::text[], $25::text[], $26::bytea[])
        as webhook (job, receiver, url, events, secret)
    where job in (select job from accepted)
)
select
    coalesce(reserved.job, asked.job) as "job!",
    reserved.fingerprint as "fingerprint?"
from asked
left join reserved
    on reserved.tenant = asked.tenant and reserved.route = asked.route and reserved.key = asked.idempotency_key
order by asked.ordinal
