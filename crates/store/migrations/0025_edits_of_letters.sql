-- The digest of what a dead letter was redriven as, where its record was edited: the same order given once more is told
-- from another edit. Null: it went back as it was, it was dropped, or it was settled before this column was there.
alter table ingest.settled_letters add column edit bytea;
