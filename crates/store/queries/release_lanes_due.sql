-- Holds whose time has come and that hold their lanes. Their turns are sent by the caller, in the same transaction.
with due as (
    select job, branch, hop
    from orchestrator.holds
    where release_at <= now() and reason in ('room', 'unread')
    order by release_at
    limit $1
    for update skip locked
),
released as (
    delete from orchestrator.holds as hold
    using due
    where hold.job = due.job and hold.branch = due.branch and hold.hop = due.hop
    returning hold.release_at, hold.job, hold.branch, hold.hop, hold.topic, hold.key, hold.value, hold.headers
),
appended as (
    insert into outbox.messages (topic, key, value, headers)
    select topic, key, value, headers from released order by release_at
)
select job as "job!", branch as "branch!", hop as "hop!", topic as "topic!", key from released
