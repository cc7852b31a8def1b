create schema orchestrator;

-- The projection of every job, from its events. No index holds a column that changes, so that updates stay within
-- the page (HOT); listing goes by id, which is by time.
create table orchestrator.jobs (
    job uuid primary key,
    tenant text not null,
    flow text not null,
    version text not null,
    key text not null,
    correlation_id text not null,
    status text not null,
    cursor_partition integer not null,
    cursor bigint not null,
    steps_total integer not null,
    accepted_at timestamptz not null,
    updated_at timestamptz not null,
    trace_id text,
    retry_of uuid,
    -- One JSON object per line and event, appended.
    history bytea not null
) with (fillfactor = 60);
create index jobs_by_flow on orchestrator.jobs (tenant, flow, job);
create index jobs_by_correlation on orchestrator.jobs (tenant, correlation_id);

-- Slips at rest. A row is the job's token: whoever deletes it puts the record into the outbox in the same transaction.
create table orchestrator.holds (
    job uuid not null,
    branch text not null,
    hop integer not null,
    reason text not null,
    held_at timestamptz not null default now(),
    -- Null: released by an operator only.
    release_at timestamptz,
    topic text not null,
    key bytea,
    value bytea,
    headers bytea not null,
    primary key (job, branch, hop)
);
create index holds_due on orchestrator.holds (release_at) where release_at is not null;

-- Where each dead letter lies on its topic, and why. The record itself stays on Kafka.
create table orchestrator.dead_letters (
    topic text not null,
    partition integer not null,
    "offset" bigint not null,
    original_topic text,
    original_partition integer,
    original_offset bigint,
    class text not null,
    reason text not null,
    attempts integer not null,
    key bytea,
    headers bytea not null,
    value_bytes integer not null,
    at timestamptz not null,
    primary key (topic, partition, "offset")
);
create index dead_letters_newest on orchestrator.dead_letters (at desc);

create table orchestrator.offsets (
    topic text not null,
    partition integer not null,
    next_offset bigint not null,
    updated_at timestamptz not null default now(),
    primary key (topic, partition)
) with (fillfactor = 50);

grant usage, create on schema orchestrator to meanwhile_orchestrator;
alter table orchestrator.jobs owner to meanwhile_orchestrator;
alter table orchestrator.holds owner to meanwhile_orchestrator;
alter table orchestrator.dead_letters owner to meanwhile_orchestrator;
alter table orchestrator.offsets owner to meanwhile_orchestrator;

-- Cross-schema reads: see cross-schema-reads.txt.
grant usage on schema orchestrator to meanwhile_ingest;
grant select on orchestrator.jobs to meanwhile_ingest;
