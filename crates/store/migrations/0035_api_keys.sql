-- The keys by which callers of the API are known. A key itself is stored nowhere: only its hash.
create table ingest.api_keys (
    -- The readable part of the key, by which it is looked up.
    id text primary key,
    tenant text not null,
    -- For people.
    name text not null,
    -- HMAC-SHA-256 of the whole key, under the deployment's secret (auth.keys_secret).
    hash bytea not null,
    scopes text[] not null,
    created_by text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    revoked_by text,
    -- Of the row, but for its last use: instances read what has changed since they looked.
    changed_at timestamptz not null default now(),
    -- Some seconds late.
    last_used_at timestamptz
) with (fillfactor = 70);
create index api_keys_by_tenant on ingest.api_keys (tenant, created_at);
create index api_keys_by_change on ingest.api_keys (changed_at);
alter table ingest.api_keys owner to meanwhile_ingest;
