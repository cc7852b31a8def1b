-- Jobs that have made no progress for long, although nothing that they wait for is known. Null: none is known of.
-- No event of a job that goes on changes the column, so updates stay within the page (HOT) in spite of the index.
alter table orchestrator.jobs add column stuck_since timestamptz;
create index jobs_stuck on orchestrator.jobs (job) where stuck_since is not null;

-- Jobs that had not ended some time after their acceptance. All jobs come by here once, in the order of their ids, and
-- few stay: nothing is written for a job that ends soon.
create table orchestrator.watched (
    job uuid primary key,
    -- When somebody looks at it next.
    due_at timestamptz not null default now(),
    -- The cursor that it had at the last look, and since when it has stood there without resting in a hold.
    cursor bigint not null default -1,
    since timestamptz,
    -- The cursor at which it was announced as stuck.
    announced bigint not null default -1
) with (fillfactor = 70);
create index watched_due on orchestrator.watched (due_at);
create index watched_since on orchestrator.watched (since) where since is not null;
alter table orchestrator.watched owner to meanwhile_orchestrator;

-- How far the look at new jobs has come, and the last record that was sent through the outbox to be heard of: once it
-- is, all rows that were committed before it was sent are on Kafka.
create table orchestrator.watch (
    single boolean primary key default true check (single),
    walked_to uuid not null default '00000000-0000-0000-0000-000000000000',
    echo uuid,
    echo_sent_at timestamptz,
    echo_heard_at timestamptz
);
insert into orchestrator.watch default values;
alter table orchestrator.watch owner to meanwhile_orchestrator;
