-- The deliveries of the tenant $1 with ids below $5, newest first, $6 at most; of the endpoint $2, the job $3 and with
-- the status $4, where these are not null. One of the three walks is made.
select
    chosen.id as "id!",
    chosen.endpoint as "endpoint!",
    chosen.of_job as "of_job!",
    chosen.job as "job?",
    chosen.type as "kind!",
    chosen.status as "status!",
    chosen.attempts as "attempts!",
    (extract(epoch from chosen.created_at) * 1000)::bigint as "created_at_ms!",
    case
        when chosen.status = 'pending' then (extract(epoch from chosen.due_at) * 1000)::bigint
    end as "due_at_ms?",
    (extract(epoch from chosen.ended_at) * 1000)::bigint as "ended_at_ms?",
    chosen.body as "body!"
from (
    (
        select * from notifier.deliveries
        where $3::uuid is not null and job = $3 and tenant = $1 and ($2::uuid is null or endpoint = $2)
            and ($4::text is null or status = $4) and id < $5
        order by id desc limit $6
    )
    union all
    (
        select * from notifier.deliveries
        where $3 is null and $2 is not null and endpoint = $2 and tenant = $1
            and ($4 is null or status = $4) and id < $5
        order by id desc limit $6
    )
    union all
    (
        select * from notifier.deliveries
        where $3 is null and $2 is null and tenant = $1 and ($4 is null or status = $4) and id < $5
        order by id desc limit $6
    )
) as chosen
order by chosen.id desc
limit $6
