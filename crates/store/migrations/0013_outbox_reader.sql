-- The way in which relays read the outbox, as `meanwhile migrate` chose it. No row: by the replication slot.
create table outbox.reader (
    single boolean primary key default true check (single),
    way text not null check (way in ('logical', 'polling')),
    -- Of polling: the last row that is on Kafka, for certain. Never ahead of the position there; seq 0: none of this
    -- transaction, but all before it.
    txid xid8 not null default '0',
    seq bigint not null default 0,
    -- Of its transaction, since 2000-01-01.
    began_micros bigint not null default 0
);
alter table outbox.reader owner to meanwhile_relay;

-- Cross-schema reads: see cross-schema-reads.txt.
grant select on outbox.reader to meanwhile_ingest, meanwhile_orchestrator, meanwhile_notifier;
