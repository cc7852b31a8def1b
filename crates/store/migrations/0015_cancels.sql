-- The jobs that somebody wants cancelled. A row stays for as long as its job does, for the status; it is open until the
-- job has ended. An open one sends on what comes to rest.
create table orchestrator.cancels (
    job uuid primary key,
    tenant text not null,
    requested_by text not null,
    reason text,
    requested_at timestamptz not null,
    -- Set in the transaction that takes the record of the cancel back.
    ended_at timestamptz
);
create index cancels_open on orchestrator.cancels (job) where ended_at is null;
create index cancels_by_end on orchestrator.cancels (ended_at) where ended_at is not null;
alter table orchestrator.cancels owner to meanwhile_orchestrator;

-- Cross-schema reads: see cross-schema-reads.txt.
grant select on orchestrator.cancels to meanwhile_ingest;
