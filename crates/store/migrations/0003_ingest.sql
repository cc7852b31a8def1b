create schema ingest;

-- One row per accepted job, written once. Partitioned by the time inside the id (UUIDv7), so that retention drops whole
-- days; the default partition catches skewed clocks.
create table ingest.acceptances (
    job uuid primary key,
    tenant text not null,
    flow text not null,
    version text not null,
    key text not null,
    correlation_id text not null,
    input bytea not null,
    accepted_at timestamptz not null,
    deadline timestamptz,
    steps_total integer not null,
    trace_id text,
    retry_of uuid
) partition by range (job);

create table ingest.acceptances_default partition of ingest.acceptances default;

-- Which job a caller's key stands for. A table of its own: a unique index on a table that is partitioned by time could
-- not hold it.
create table ingest.idempotency (
    tenant text not null,
    route text not null,
    key text not null,
    fingerprint bytea not null,
    job uuid not null,
    expires_at timestamptz not null,
    primary key (tenant, route, key)
);
create index idempotency_expiry on ingest.idempotency (expires_at);

-- Every version of every flow that was ever applied. Of a flow, the row with the highest revision is the active one;
-- applying an older version again gives its row a new revision.
create sequence ingest.flow_revisions;
create table ingest.flows (
    flow text not null,
    version text not null,
    revision bigint not null unique,
    document text not null,
    applied_at timestamptz not null default now(),
    primary key (flow, version)
);

create table ingest.offsets (
    topic text not null,
    partition integer not null,
    next_offset bigint not null,
    updated_at timestamptz not null default now(),
    primary key (topic, partition)
) with (fillfactor = 50);

grant usage, create on schema ingest to meanwhile_ingest;
alter table ingest.acceptances owner to meanwhile_ingest;
alter table ingest.acceptances_default owner to meanwhile_ingest;
alter table ingest.idempotency owner to meanwhile_ingest;
alter sequence ingest.flow_revisions owner to meanwhile_ingest;
alter table ingest.flows owner to meanwhile_ingest;
alter table ingest.offsets owner to meanwhile_ingest;
