-- The events of a job lie in its row up to some size; those after them here, so that a job with very many is not
-- rewritten for each one.
create table orchestrator.job_events (
    job uuid not null,
    -- Of the last event of these lines.
    cursor bigint not null,
    -- As in `orchestrator.jobs.history`.
    lines bytea not null,
    primary key (job, cursor)
);
alter table orchestrator.job_events owner to meanwhile_orchestrator;

-- The cursor up to which the row's own history goes. Null: rows of before, which have all of it.
alter table orchestrator.jobs add column history_cursor bigint;

-- Cross-schema reads: see cross-schema-reads.txt.
grant select on orchestrator.job_events to meanwhile_ingest;
