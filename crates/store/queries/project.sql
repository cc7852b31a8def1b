-- $1-$15 and $17-$19: one row per job. Appended to a job that is there, unless its cursor is already as far. $16: the
-- bytes of history from which on a row takes no more of it. $17: since when the job is stuck, if that is all that its
-- event tells; below zero: it tells so, and is wrong. Returned are the jobs whose events the caller must put elsewhere.
with written as (
    insert into orchestrator.jobs as job (
        job, tenant, flow, version, key, correlation_id, status, cursor_partition, cursor, steps_total,
        accepted_at, updated_at, trace_id, retry_of, history, history_cursor, stuck_since,
        step_since, begun_at
    )
    select
        job, tenant, flow, version, key, correlation_id, status, cursor_partition, cursor, steps_total,
        to_timestamp(accepted_at_ms / 1000.0), to_timestamp(updated_at_ms / 1000.0), trace_id, retry_of, history,
        cursor, case when stuck_at_ms < 0 then '-infinity' else to_timestamp(stuck_at_ms / 1000.0) end,
        to_timestamp(step_since_ms / 1000.0), to_timestamp(begun_ms / 1000.0)
    from unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::integer[],
        $9::bigint[], $10::integer[], $11::bigint[], $12::bigint[], $13::text[], $14::uuid[], $15::bytea[],
        $17::bigint[], $18::bigint[], $19::bigint[]
    ) as seen (
        job, tenant, flow, version, key, correlation_id, status, cursor_partition, cursor,
        steps_total, accepted_at_ms, updated_at_ms, trace_id, retry_of, history, stuck_at_ms,
        step_since_ms, begun_ms
    )
    on conflict (job) do update set
        -- A final status is the last one.
        status = case
            when job.status in ('succeeded', 'failed', 'cancelled') or excluded.stuck_since is not null then job.status
            else excluded.status
        end,
        cursor_partition = excluded.cursor_partition,
        cursor = excluded.cursor,
        updated_at = case when excluded.stuck_since is null then excluded.updated_at else job.updated_at end,
        -- Any other event takes it back.
        stuck_since = nullif(excluded.stuck_since, '-infinity'),
        trace_id = coalesce(job.trace_id, excluded.trace_id),
        step_since = excluded.step_since,
        begun_at = excluded.begun_at,
        history = case
            when octet_length(job.history) < $16::integer then job.history || excluded.history else job.history
        end,
        history_cursor = case
            when octet_length(job.history) < $16::integer then excluded.cursor
            else coalesce(job.history_cursor, job.cursor)
        end
    where job.cursor < excluded.cursor
    returning job.job, job.cursor, job.history_cursor
)
select job as "job!" from written where history_cursor < cursor
