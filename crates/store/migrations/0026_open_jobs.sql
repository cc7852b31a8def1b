-- Ingest counts the jobs that are not over as it starts: those that are watched, and those that the search for stuck
-- jobs has not come to. Cross-schema reads: see cross-schema-reads.txt.
grant select on orchestrator.watched, orchestrator.watch to meanwhile_ingest;
