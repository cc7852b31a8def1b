-- The jobs of the tenant $1 with ids from $2 to below $3, newest first, $4 of them at most; none of the others chooses
-- where it is null: the correlation id $5, the key $6, the flow $7, the status $8. $10: only those that are stuck. One of
-- the four walks is made, and looks at $9 jobs at most.
select
    looked.job as "job!",
    looked.flow as "flow!",
    looked.version as "version!",
    looked.key as "key!",
    looked.correlation_id as "correlation_id!",
    looked.steps_total as "steps_total!",
    looked.trace_id as "trace_id?",
    looked.retry_of as "retry_of?",
    (extract(epoch from looked.accepted_at) * 1000)::bigint as "accepted_at_ms!",
    seen.status as "status?",
    (extract(epoch from seen.updated_at) * 1000)::bigint as "updated_at_ms?",
    (extract(epoch from seen.stuck_since) * 1000)::bigint as "stuck_since_ms?",
    -- The events of the row, or the last ones of those beside it.
    case when seen.history_cursor < seen.cursor then (
        select more.lines from orchestrator.job_events as more
        where more.job = looked.job order by more.cursor desc limit 1
    ) else seen.history end as "lines?"
from (
    (
        select job, tenant, flow, version, key, correlation_id, steps_total, trace_id, retry_of, accepted_at
        from ingest.acceptances
        where not $10::boolean and $5::text is not null
            and hashtextextended(correlation_id, 0) = hashtextextended($5, 0) and job >= $2 and job < $3
        order by job desc limit $9
    )
    union all
    (
        select job, tenant, flow, version, key, correlation_id, steps_total, trace_id, retry_of, accepted_at
        from ingest.acceptances
        where not $10 and $5::text is null and $6::text is not null
            and hashtextextended(key, 0) = hashtextextended($6, 0) and key <> job::text and job >= $2 and job < $3
        order by job desc limit $9
    )
    union all
    (
        select job, tenant, flow, version, key, correlation_id, steps_total, trace_id, retry_of, accepted_at
        from ingest.acceptances
        where not $10 and $5::text is null and $6::text is null and job >= $2 and job < $3
        order by job desc limit $9
    )
    union all
    (
        select job, tenant, flow, version, key, correlation_id, steps_total, trace_id, retry_of, accepted_at
        from orchestrator.jobs
        where $10 and stuck_since is not null and job >= $2 and job < $3
        order by job desc limit $9
    )
) as looked
-- With a limit, so that no plan reads the projection as a whole.
left join lateral (
    select status, updated_at, stuck_since, cursor, history, history_cursor
    from orchestrator.jobs where jobs.job = looked.job limit 1
) as seen on true
where looked.tenant = $1
    and ($5::text is null or looked.correlation_id = $5)
    and ($6::text is null or looked.key = $6)
    and ($7::text is null or looked.flow = $7)
    and ($8::text[] is null or coalesce(seen.status, 'accepted') = any ($8))
order by looked.job desc
limit $4
