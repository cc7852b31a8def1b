-- Signals of jobs. One that comes before its hold waits for it; one that was used stays for as long as its repetitions
-- are to be known.
create table orchestrator.signals (
    job uuid not null,
    name text not null,
    id text not null,
    ordinal bigint not null generated always as identity,
    payload bytea,
    came_at timestamptz not null default now(),
    used_at timestamptz,
    primary key (job, name, id)
);
create index signals_open on orchestrator.signals (job, name, ordinal) where used_at is null;
create index signals_by_age on orchestrator.signals (came_at);
alter table orchestrator.signals owner to meanwhile_orchestrator;

-- Cross-schema reads: see cross-schema-reads.txt.
grant select on orchestrator.signals to meanwhile_ingest;

-- The name of the signal that a hold waits for.
alter table orchestrator.holds add column signal text;
