-- How far the schedules of flows have come: every tick up to `reached_at` has started its job, or was left out. It
-- moves in the transaction that accepts the job of a tick, and only from the expected value, so that a tick starts
-- one job, however many processes come to it.
create table ingest.schedules (
    flow text primary key,
    -- The revision of the flow that these terms are of.
    revision bigint not null,
    -- Pattern and zone: with others it begins anew.
    terms text not null,
    reached_at timestamptz not null
) with (fillfactor = 50);
alter table ingest.schedules owner to meanwhile_ingest;
