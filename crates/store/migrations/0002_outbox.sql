-- The outbox: append-only. Everyone who writes Postgres inserts; only the relay reads, and drops what it has delivered.
create schema outbox;

create table outbox.messages (
    created_at timestamptz not null default now(),
    txid xid8 not null default pg_current_xact_id(),
    -- The order within a transaction. Cached per session: it rises within one, which is all that is asked of it.
    seq bigint generated always as identity (cache 64),
    topic text not null,
    -- Null is a record without a key.
    key bytea,
    -- Null is a tombstone.
    value bytea,
    -- One blob, copied through by the relay: for each header, in order, length of name (u32, big-endian), name (UTF-8),
    -- length of value (u32, big-endian; 2^32-1 for null), value.
    headers bytea not null
) partition by range (created_at);

-- No primary key: it would have to contain created_at, and reading in commit order needs exactly this index. Nothing is
-- published but inserts, so no replica identity is needed either.
create index messages_position on outbox.messages (txid, seq);

-- Hourly partitions are made ahead by the relay. What finds none (nobody made one for hours) lands here and is deleted
-- row by row.
create table outbox.messages_default partition of outbox.messages default;

create publication meanwhile_outbox for table outbox.messages
    with (publish = 'insert', publish_via_partition_root = true);

grant usage on schema outbox to meanwhile_ingest, meanwhile_orchestrator, meanwhile_notifier;
grant insert on outbox.messages to meanwhile_ingest, meanwhile_orchestrator, meanwhile_notifier;
grant usage, create on schema outbox to meanwhile_relay;
alter table outbox.messages owner to meanwhile_relay;
alter table outbox.messages_default owner to meanwhile_relay;
