-- Each hold of these jobs that a signal ends meets the oldest signal of that name that nothing has used. Several of one
-- name are used one each, in their order. A back-off has such a name where a callback may come during it.
with waiting as (
    select job, branch, hop, signal, row_number() over (partition by job, signal order by hop, branch) as place
    from orchestrator.holds
    where job = any($1) and signal is not null
),
unused as (
    select job, name, id, payload, row_number() over (partition by job, name order by ordinal) as place
    from orchestrator.signals
    where job = any($1) and used_at is null
),
taken as (
    delete from orchestrator.holds as hold
    using waiting join unused
        on unused.job = waiting.job and unused.name = waiting.signal and unused.place = waiting.place
    where hold.job = waiting.job and hold.branch = waiting.branch and hold.hop = waiting.hop
    returning hold.job, hold.branch, hold.hop, hold.topic, hold.key, hold.value, hold.headers,
              unused.name, unused.id, unused.payload
),
used as (
    update orchestrator.signals as signal
    set used_at = now()
    from taken
    where signal.job = taken.job and signal.name = taken.name and signal.id = taken.id
)
select topic as "topic!", key as "key?", value as "value?", headers as "headers!", payload as "payload?"
from taken
order by job, branch, hop
