-- The audit log: requests that change something, but for jobs that are submitted: their acceptances tell of those.
-- A row is written before the deed, and one of ingest.audit_results after it. Both are only ever added to.
create table ingest.audit (
    -- UUIDv7: carries the time.
    id uuid primary key,
    tenant text not null,
    -- The caller: key:..., token:..., or the tenant where nobody says who they are.
    subject text not null,
    -- Such as job.cancel.
    action text not null,
    -- The object: a job, an endpoint, a flow. Empty: on what its body chooses.
    object text not null,
    -- The client's address, as far as that can be known.
    client text,
    trace_id text,
    at timestamptz not null default now()
);
create index audit_by_tenant on ingest.audit (tenant, id);
create index audit_by_object on ingest.audit (tenant, object, id);
alter table ingest.audit owner to meanwhile_ingest;
revoke update, delete, truncate on ingest.audit from meanwhile_ingest;

-- Without a row here it is not known whether the deed was done: the process has ended in between.
create table ingest.audit_results (
    id uuid primary key,
    -- The status of the answer.
    status integer not null,
    at timestamptz not null default now()
);
alter table ingest.audit_results owner to meanwhile_ingest;
revoke update, delete, truncate on ingest.audit_results from meanwhile_ingest;

-- The subject that has submitted a job. Null: jobs of before.
alter table ingest.acceptances add column submitted_by text;
