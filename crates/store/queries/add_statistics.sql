-- $1-$4, $6-$12: one sum per place. They come in order, so that two transactions never wait for each other.
insert into orchestrator.statistics as sums (
    tenant, flow, step, minute, shard, accepted, succeeded, skipped, failed, cancelled, duration_sum_ms, durations
)
select
    tenant, flow, step, to_timestamp(minute_ms / 1000), $5::integer, accepted, succeeded, skipped, failed, cancelled,
    duration_sum_ms, durations::integer[]
from unnest(
    $1::text[], $2::text[], $3::text[], $4::bigint[], $6::integer[], $7::integer[], $8::integer[], $9::integer[],
    $10::integer[], $11::bigint[], $12::text[]
) as seen (
    tenant, flow, step, minute_ms, accepted, succeeded, skipped, failed, cancelled, duration_sum_ms, durations
)
on conflict (tenant, flow, step, minute, shard) do update set
    accepted = sums.accepted + excluded.accepted,
    succeeded = sums.succeeded + excluded.succeeded,
    skipped = sums.skipped + excluded.skipped,
    failed = sums.failed + excluded.failed,
    cancelled = sums.cancelled + excluded.cancelled,
    duration_sum_ms = sums.duration_sum_ms + excluded.duration_sum_ms,
    durations = array(
        select coalesce(was, 0) + coalesce(more, 0)
        from unnest(sums.durations, excluded.durations) with ordinality as bins (was, more, bin)
        order by bin
    )
