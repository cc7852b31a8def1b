-- How long jobs and their steps take, and how they end: one row per flow, step and minute, of which a minute's rows add
-- up. Written in the transaction that takes the events in, so each event counts once.
create table orchestrator.statistics (
    tenant text not null,
    flow text not null,
    -- Empty: the job as a whole.
    step text not null,
    minute timestamptz not null,
    -- Two orchestrators rarely write to one row: each has partitions of its own.
    shard smallint not null,
    accepted integer not null,
    succeeded integer not null,
    skipped integer not null,
    failed integer not null,
    cancelled integer not null,
    duration_sum_ms bigint not null,
    -- A histogram, from its first bin on, as `store::statistics` cuts them: 288 bins at most.
    durations integer[] not null,
    primary key (tenant, flow, step, minute, shard)
) with (fillfactor = 50);
create index statistics_by_minute on orchestrator.statistics (minute);
alter table orchestrator.statistics owner to meanwhile_orchestrator;

-- Cross-schema reads: see cross-schema-reads.txt.
grant select on orchestrator.statistics to meanwhile_ingest;

-- When a job came to its present step, and when it began if that was later than its acceptance. Null: rows of before.
alter table orchestrator.jobs add column step_since timestamptz, add column begun_at timestamptz;
