-- What is set for a tenant. A tenant without a row has the deployment's own settings.
create table ingest.tenants (
    tenant text primary key,
    -- For so many seconds after their ends its jobs are kept, and all that they have left. Null: as flow and deployment
    -- say.
    keep_s bigint check (keep_s >= 3600),
    -- Not null: its credentials open nothing.
    disabled_at timestamptz,
    -- When all its data was deleted last.
    deleted_at timestamptz,
    changed_at timestamptz not null default now()
);
alter table ingest.tenants owner to meanwhile_ingest;

-- For so many seconds after their ends the jobs of this version are kept (`retention`). Null: as tenant and deployment
-- say.
alter table ingest.flows add column keep_s bigint;

-- Cross-schema reads: see cross-schema-reads.txt. Of acceptances and flows only what tells how long a job is kept.
grant usage on schema ingest to meanwhile_orchestrator;
grant select on ingest.tenants to meanwhile_orchestrator, meanwhile_notifier;
grant select (flow, version, keep_s) on ingest.flows to meanwhile_orchestrator, meanwhile_notifier;
-- A job's own webhook stays until the notifier has taken in its last event.
grant select on notifier.offsets to meanwhile_ingest;
grant select (job) on ingest.acceptances to meanwhile_orchestrator, meanwhile_notifier;
