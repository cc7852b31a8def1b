-- Where tenants want to be told of events. What is registered belongs to ingest, what became of it to the notifier.
create table ingest.webhook_endpoints (
    id uuid primary key,
    tenant text not null,
    -- Rises with every change.
    version bigint not null default 1,
    url text not null,
    description text not null,
    -- Types such as job.failed, groups such as job.*, or *.
    events text[] not null,
    -- hmac or ed25519.
    kind text not null,
    secret bytea not null,
    -- Until then, the secret before the last rotation signs too.
    old_secret bytea,
    old_secret_until timestamptz,
    -- Rises when it is enabled, or has another URL: what became of it before then says nothing any more.
    epoch integer not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index webhook_endpoints_by_tenant on ingest.webhook_endpoints (tenant, id);
alter table ingest.webhook_endpoints owner to meanwhile_ingest;

-- What somebody asks of the notifier. It notes which of them are done in a table of its own.
create table ingest.webhook_requests (
    -- Of a ping: the id of its delivery, too.
    id uuid primary key,
    endpoint uuid not null,
    -- ping, resend (of one delivery), recover (of those that were given up since a time).
    action text not null,
    delivery uuid,
    since timestamptz,
    asked_at timestamptz not null default now()
);
create index webhook_requests_by_age on ingest.webhook_requests (asked_at);
alter table ingest.webhook_requests owner to meanwhile_ingest;

create table notifier.webhook_requests (
    id uuid primary key,
    done_at timestamptz not null default now()
);
create index webhook_requests_by_age on notifier.webhook_requests (done_at);
alter table notifier.webhook_requests owner to meanwhile_notifier;

-- How endpoints do. Without a row, or with one of an earlier epoch, nothing is wrong.
create table notifier.endpoints (
    endpoint uuid primary key,
    epoch integer not null,
    -- The first failure since the last success.
    failing_since timestamptz,
    -- No delivery begins before then.
    paused_until timestamptz,
    pause_ms bigint not null default 0,
    disabled_at timestamptz,
    disabled_reason text
) with (fillfactor = 50);
alter table notifier.endpoints owner to meanwhile_notifier;

-- One row for each event and endpoint. The id is the receiver's `webhook-id`, and carries the time.
create table notifier.deliveries (
    id uuid primary key,
    -- The order in which they came in. Those of one job at one endpoint are sent in it.
    ordinal bigint not null generated always as identity,
    endpoint uuid not null,
    tenant text not null,
    job uuid,
    type text not null,
    body bytea not null,
    traceparent text,
    -- pending, delivered, failed (given up).
    status text not null default 'pending',
    -- The next attempt; while one is under way, the end of its lease.
    due_at timestamptz not null default now(),
    -- Attempts that have begun.
    attempts integer not null default 0,
    -- Failures since it was created or sent again: the place in the schedule.
    failures integer not null default 0,
    created_at timestamptz not null default now(),
    ended_at timestamptz
) with (fillfactor = 70);
create index deliveries_due on notifier.deliveries (endpoint, due_at) where status = 'pending';
create index deliveries_in_order on notifier.deliveries (endpoint, job, ordinal) where status = 'pending';
create index deliveries_by_tenant on notifier.deliveries (tenant, id);
create index deliveries_by_endpoint on notifier.deliveries (endpoint, id);
create index deliveries_by_job on notifier.deliveries (job, id);
alter table notifier.deliveries owner to meanwhile_notifier;

create table notifier.attempts (
    delivery uuid not null,
    attempt integer not null,
    ended_at timestamptz not null default now(),
    duration_ms bigint not null,
    -- The status of the answer, if one came.
    status integer,
    -- A short stable word, if it failed.
    error text,
    -- For a person.
    detail text,
    -- The first bytes of the answer.
    answer bytea not null,
    primary key (delivery, attempt)
);
alter table notifier.attempts owner to meanwhile_notifier;

-- Cross-schema reads: see cross-schema-reads.txt.
grant usage on schema ingest to meanwhile_notifier;
grant select on ingest.webhook_endpoints, ingest.webhook_requests to meanwhile_notifier;
grant usage on schema notifier to meanwhile_ingest;
grant select on notifier.endpoints, notifier.deliveries, notifier.attempts to meanwhile_ingest;
