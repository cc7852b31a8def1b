-- The dead letters that somebody has sent back or dropped. Written in the transaction that puts the record into the
-- outbox, so that a letter is sent back once.
create table ingest.settled_letters (
    topic text not null,
    partition integer not null,
    "offset" bigint not null,
    action text not null,
    reason text,
    settled_at timestamptz not null default now(),
    primary key (topic, partition, "offset")
);
alter table ingest.settled_letters owner to meanwhile_ingest;

-- Cross-schema reads: see cross-schema-reads.txt.
grant select on orchestrator.dead_letters, orchestrator.holds to meanwhile_ingest;
