-- Takes the watched jobs that have stood still since $1 (milliseconds since the Unix epoch) or longer, $2 of them at
-- most, and notes that they are announced.
with still as (
    select job, cursor from orchestrator.watched
    where since <= to_timestamp($1::bigint / 1000.0) and cursor <> announced
    order by since
    limit $2
    for update skip locked
),
stuck as (
    select jobs.*
    from still cross join lateral (
        select job, tenant, flow, version, key, correlation_id, status, cursor, steps_total, accepted_at, retry_of,
            -- The events of the row, or the last ones of those beside it.
            case when seen.history_cursor < seen.cursor then (
                select more.lines from orchestrator.job_events as more
                where more.job = seen.job order by more.cursor desc limit 1
            ) else seen.history end as lines
        from orchestrator.jobs as seen
        where seen.job = still.job and seen.cursor = still.cursor and seen.stuck_since is null
            and seen.status not in ('succeeded', 'failed', 'cancelled')
        limit 1
    ) as jobs
    where not exists (
        select from orchestrator.holds as hold
        where hold.job = still.job
            and (hold.release_at is null or hold.release_at > to_timestamp($1::bigint / 1000.0))
            and (
                hold.reason <> 'running'
                or exists (select from orchestrator.workers where workers.worker = hold.worker)
            )
    )
),
noted as (
    update orchestrator.watched as watched set announced = stuck.cursor from stuck where watched.job = stuck.job
)
select
    job as "job!", tenant as "tenant!", flow as "flow!", version as "version!", key as "key!",
    correlation_id as "correlation_id!", status as "status!", cursor as "cursor!", steps_total as "steps_total!",
    (extract(epoch from accepted_at) * 1000)::bigint as "accepted_at_ms!", retry_of as "retry_of?", lines as "lines!"
from stuck
