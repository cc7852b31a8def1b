-- Breakers of downstreams. A row is the owner of the state that all workers know.
create table orchestrator.breakers (
    downstream text primary key,
    -- closed, paused (no call is made), ready (the next hold is the probe), probing, recovering
    phase text not null default 'closed',
    -- Rises with every change that workers must know.
    epoch bigint not null default 0,
    -- An operator has set the state.
    forced boolean not null default false,
    changed_at timestamptz not null default now(),
    -- When it must be looked at next.
    due_at timestamptz,
    -- The last pause before a probe.
    pause_ms bigint not null default 0,
    -- Holds that are let pass in a second.
    release_per_s double precision not null default 0,
    -- Holds that came to rest earlier were let pass already: where the next look at them begins.
    released_to timestamptz,
    -- Why it is as it is, for a person, and who wants it so.
    reason text not null default '',
    ordered_by text,
    -- How often it opened.
    openings bigint not null default 0
) with (fillfactor = 50);
create index breakers_due on orchestrator.breakers (due_at) where due_at is not null;
alter table orchestrator.breakers owner to meanwhile_orchestrator;

-- Cross-schema reads: see cross-schema-reads.txt.
grant select on orchestrator.breakers to meanwhile_ingest;

-- The downstream whose breaker or limit a hold waits for.
alter table orchestrator.holds add column downstream text;
create index holds_by_downstream on orchestrator.holds (downstream, held_at) where reason = 'breaker';
