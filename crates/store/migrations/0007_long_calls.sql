-- Long calls. A hold of reason `running` is a token whose step a worker has under way; one of reason `turn` waits
-- behind it. Both belong to the lane (topic, key): a `turn` rests only while a `running` one of its lane does.
alter table orchestrator.holds
    -- Of a running call: who makes it, as `instance/start`.
    add column worker text,
    -- Of a turn: its place behind the running call, from 1.
    add column place integer;
create index holds_running_by_worker on orchestrator.holds (worker, job, branch, hop) where reason = 'running';
create index holds_running_by_lane on orchestrator.holds (topic, key) where reason = 'running';
create index holds_turns on orchestrator.holds (topic, key, place) where reason = 'turn';

-- Workers that have long calls under way, or had some lately. Who is silent for too long is asked; the question goes
-- the way of the signs of life, so an answer to it stands before the next one. Who answers none is lost.
create table orchestrator.workers (
    -- `instance/start`
    worker text primary key,
    instance text not null,
    lease_ms bigint not null,
    alive_at timestamptz not null default now(),
    -- How often it was asked since its last sign of life.
    round integer not null default 0,
    -- Of the question that is on its way: tells it from earlier ones. Null: none is.
    question_ms bigint,
    -- When somebody must look at it next.
    due_at timestamptz not null,
    -- Not null: its calls are sent to others. Nothing takes that back.
    lost_reason text,
    -- How many were sent so far.
    released integer not null default 0
) with (fillfactor = 50);
create index workers_by_instance on orchestrator.workers (instance);
alter table orchestrator.workers owner to meanwhile_orchestrator;
