-- What operators change at run time about flows' own addresses: every version of every flow's flags, with who, when and
-- why. The highest version holds.
create table ingest.flags (
    flow text not null,
    version bigint not null,
    -- JSON, as it was written.
    document text not null,
    changed_by text not null,
    reason text not null,
    -- The version that was gone back to.
    rollback_to bigint,
    changed_at timestamptz not null default now(),
    primary key (flow, version)
);
alter table ingest.flags owner to meanwhile_ingest;
-- Versions are added, and never changed or taken away: the table is its own audit log.
revoke update, delete, truncate on ingest.flags from meanwhile_ingest;
