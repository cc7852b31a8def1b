-- The newest rows of each of these steps ($3), newest first, by the primary key.
select steps.step as "step!", newest.succeeded, newest.skipped, newest.duration_sum_ms, newest.durations
from unnest($3::text[]) as steps (step)
cross join lateral (
    select sums.minute, sums.succeeded, sums.skipped, sums.duration_sum_ms, sums.durations
    from orchestrator.statistics as sums
    where sums.tenant = $1 and sums.flow = $2 and sums.step = steps.step
    order by sums.minute desc
    limit $4
) as newest
order by newest.minute desc
