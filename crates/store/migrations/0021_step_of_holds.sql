-- The step that the slip of a hold is at. Null: rows of before, and slips that nobody has read.
alter table orchestrator.holds add column step text;
