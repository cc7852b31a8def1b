-- Walks on over the jobs with ids below $1, $2 of them at most, and notes those that have not ended. Another process
-- that walks at the same time finds the row locked, and walks over none.
with watch as (
    select walked_to from orchestrator.watch for update skip locked
),
walked as (
    select jobs.job, jobs.status
    from watch cross join lateral (
        select job, status from orchestrator.jobs where job > watch.walked_to and job < $1 order by job limit $2
    ) as jobs
),
added as (
    insert into orchestrator.watched (job)
    select job from walked where status not in ('succeeded', 'failed', 'cancelled')
    on conflict (job) do nothing
),
moved as (
    update orchestrator.watch set walked_to = (select job from walked order by job desc limit 1)
    where exists (select from walked)
)
select count(*) as "walked!" from walked
