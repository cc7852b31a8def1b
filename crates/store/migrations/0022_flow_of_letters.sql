-- The flow and the step that a dead letter is about, where its record tells. Null: rows of before, and records that
-- tell nothing.
alter table orchestrator.dead_letters add column flow text, add column step text;
