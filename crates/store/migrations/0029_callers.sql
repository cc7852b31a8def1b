-- Who uses which form of a flow's own address: counted in memory, added up here every few seconds.
create table ingest.callers (
    flow text not null,
    tenant text not null,
    day date not null,
    -- The name by which a caller is known: its client id, else its User-Agent.
    caller text not null,
    -- sync, async or proxy.
    form text not null,
    requests bigint not null,
    last_seen timestamptz not null,
    primary key (flow, tenant, day, caller, form)
) with (fillfactor = 70);
create index callers_by_day on ingest.callers (day);
alter table ingest.callers owner to meanwhile_ingest;
