with candidate as materialized (
    select job, branch, hop, topic, key, pg_column_size(value) as bytes
    from orchestrator.holds
    where reason = 'running' and worker = $1
    order by job, branch, hop
    limit $2
    for update skip locked
),
measured as (
    select job, branch, hop, bytes + coalesce((
        select sum(pg_column_size(turn.value))
        from orchestrator.holds as turn
        where turn.reason = 'turn' and turn.topic = candidate.topic and turn.key = candidate.key
    ), 0) as bytes
    from candidate
),
added as (
    select job, branch, hop, sum(bytes) over (order by job, branch, hop) - bytes as bytes_before from measured
),
released as (
    delete from orchestrator.holds as hold
    using added
    where hold.job = added.job and hold.branch = added.branch and hold.hop = added.hop
        and added.bytes_before < $3::bigint
    returning hold.job, hold.branch, hold.hop, hold.topic, hold.key, hold.value, hold.headers
),
appended as (
    insert into outbox.messages (topic, key, value, headers)
    select topic, key, value, headers from released order by job, branch, hop
)
select job as "job!", branch as "branch!", hop as "hop!", topic as "topic!", key from released order by job, branch, hop
