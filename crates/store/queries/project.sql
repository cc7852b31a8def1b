-- $1-$15: one row per job. Appended to a job that is there, unless its cursor is already as far.
insert into orchestrator.jobs as job (
    job, tenant, flow, version, key, correlation_id, status, cursor_partition, cursor, steps_total,
    accepted_at, updated_at, trace_id, retry_of, history
)
select
    job, tenant, flow, version, key, correlation_id, status, cursor_partition, cursor, steps_total,
    to_timestamp(accepted_at_ms / 1000.0), to_timestamp(updated_at_ms / 1000.0), trace_id, retry_of, history
from unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::integer[], $9::bigint[],
    $10::integer[], $11::bigint[], $12::bigint[], $13::text[], $14::uuid[], $15::bytea[]
) as seen (
    job, tenant, flow, version, key, correlation_id, status, cursor_partition, cursor,
    steps_total, accepted_at_ms, updated_at_ms, trace_id, retry_of, history
)
on conflict (job) do update set
    status = excluded.status,
    cursor_partition = excluded.cursor_partition,
    cursor = excluded.cursor,
    updated_at = excluded.updated_at,
    trace_id = coalesce(job.trace_id, excluded.trace_id),
    history = job.history || excluded.history
where job.cursor < excluded.cursor
