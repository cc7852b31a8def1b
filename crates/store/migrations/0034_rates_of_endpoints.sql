-- Deliveries a second that the tenant wants an endpoint to get at most; none: as many as there are.
alter table ingest.webhook_endpoints add column rate integer check (rate between 1 and 1000);

-- Of endpoints with a rate: the time at which the next delivery may begin, all notifiers together.
create table notifier.paces (
    endpoint uuid primary key,
    next_at timestamptz not null
) with (fillfactor = 50);
alter table notifier.paces owner to meanwhile_notifier;
