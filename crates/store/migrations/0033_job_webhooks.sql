-- The webhook that a request asks for its own job (`callback`). Stored with the acceptance, before the relay can see
-- the job's first record: no event overtakes it. It goes with its job.
create table ingest.job_webhooks (
    job uuid primary key,
    -- The tenant and the host that it leads to, in one: room, pauses and failures count by it.
    receiver uuid not null,
    url text not null,
    events text[] not null,
    -- The key of HMAC; none: deliveries are not signed.
    secret bytea
);
alter table ingest.job_webhooks owner to meanwhile_ingest;

-- Cross-schema reads: see cross-schema-reads.txt.
grant select on ingest.job_webhooks to meanwhile_notifier;

-- True for one to a job's own webhook: `endpoint` is then its receiver.
alter table notifier.deliveries add column of_job boolean not null default false;
