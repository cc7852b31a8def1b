-- The holds that have waited longest for this breaker. The look begins where the last one ended, so that what was taken
-- already is not walked over again.
with waiting as (
    select job, branch, hop
    from orchestrator.holds
    where downstream = $1 and reason = 'breaker'
        and held_at >= coalesce(timestamptz 'epoch' + $3::bigint * interval '1 microsecond', '-infinity')
    order by held_at
    limit $2
    for update skip locked
),
taken as (
    delete from orchestrator.holds as hold
    using waiting
    where hold.job = waiting.job and hold.branch = waiting.branch and hold.hop = waiting.hop
    returning hold.held_at, hold.topic, hold.key, hold.value, hold.headers
)
select
    topic as "topic!", key as "key?", value as "value?", headers as "headers!",
    (extract(epoch from held_at) * 1000000)::bigint as "held_at_us!"
from taken
order by held_at
