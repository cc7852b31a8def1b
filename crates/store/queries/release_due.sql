with due as (
    select job, branch, hop
    from orchestrator.holds
    where release_at <= now() and reason not in ('room', 'unread')
    order by release_at
    limit $1
    for update skip locked
),
released as (
    delete from orchestrator.holds as hold
    using due
    where hold.job = due.job and hold.branch = due.branch and hold.hop = due.hop
    returning hold.release_at, hold.topic, hold.key, hold.value, hold.headers
),
appended as (
    insert into outbox.messages (topic, key, value, headers)
    select topic, key, value, headers from released order by release_at
)
select
    (select count(*) from released) as "released!",
    (
        select ceil(extract(epoch from min(release_at) - clock_timestamp()) * 1000)::bigint
        from orchestrator.holds
        where release_at > now()
    ) as "next_due_in_ms?",
    exists (
        select from orchestrator.holds where release_at <= now() and reason in ('room', 'unread')
    ) as "lanes_due!"
