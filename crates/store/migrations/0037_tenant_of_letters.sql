-- The tenant that a dead letter is about, where its record tells. Null: rows of before, and records that tell nothing;
-- those are the deployment's own (ingest.default_tenant).
alter table orchestrator.dead_letters add column tenant text;
