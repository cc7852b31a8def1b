-- A page of the events of a tenant's job behind a cursor ($3). The job's own row has the first ones. Of the rows beside
-- it, at most $4 are read, and none once the ones before have $5 bytes.
select
    seen.job,
    seen.tenant,
    seen.flow,
    seen.version,
    seen.key,
    seen.correlation_id,
    seen.status,
    seen.cursor_partition,
    seen.cursor,
    seen.steps_total,
    (extract(epoch from seen.accepted_at) * 1000)::bigint as "accepted_at_ms!",
    (extract(epoch from seen.updated_at) * 1000)::bigint as "updated_at_ms!",
    seen.trace_id,
    seen.retry_of,
    coalesce(own.lines, ''::bytea) || coalesce(beside.lines, ''::bytea) as "history!"
from orchestrator.jobs as seen
cross join lateral (
    select case when coalesce(seen.history_cursor, seen.cursor) > $3 then seen.history end as lines
) as own
cross join lateral (
    select string_agg(page.lines, ''::bytea order by page.cursor) as lines
    from (
        select more.cursor, more.lines,
               sum(octet_length(more.lines)) over (order by more.cursor) - octet_length(more.lines) as bytes_before
        from (
            select cursor, lines from orchestrator.job_events
            where job = seen.job and cursor > $3
            order by cursor
            limit $4
        ) as more
    ) as page
    where page.bytes_before + coalesce(octet_length(own.lines), 0) < $5::bigint
) as beside
where seen.job = $1 and seen.tenant = $2
