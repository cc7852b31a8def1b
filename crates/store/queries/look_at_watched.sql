-- Looks at the watched jobs that are due, $1 of them at most. One that rests is looked at again after $2 milliseconds,
-- one that does not after $3. A hold counts while its own end is not long past, and a long call's while its worker is
-- known.
with due as (
    select job from orchestrator.watched where due_at <= now() order by due_at limit $1 for update skip locked
),
seen as (
    select
        due.job,
        jobs.cursor,
        jobs.job is null or jobs.status in ('succeeded', 'failed', 'cancelled') as is_over,
        jobs.stuck_since is not null or exists (
            select from orchestrator.holds as hold
            where hold.job = due.job
                and (hold.release_at is null or hold.release_at > now() - $2::bigint * interval '1 millisecond')
                and (
                    hold.reason <> 'running'
                    or exists (select from orchestrator.workers where workers.worker = hold.worker)
                )
        ) as rests
    from due left join lateral (
        select job, status, cursor, stuck_since from orchestrator.jobs where jobs.job = due.job limit 1
    ) as jobs on true
),
gone as (
    delete from orchestrator.watched as watched using seen where watched.job = seen.job and seen.is_over
),
looked as (
    update orchestrator.watched as watched
    set due_at = now() + case when seen.rests then $2::bigint else $3::bigint end * interval '1 millisecond',
        cursor = seen.cursor,
        since = case
            when seen.rests then null
            when watched.cursor = seen.cursor then coalesce(watched.since, now())
            else now()
        end
    from seen
    where watched.job = seen.job and not seen.is_over
)
select count(*) as "looked!" from due
