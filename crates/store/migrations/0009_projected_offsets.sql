-- Cross-schema reads: see cross-schema-reads.txt.
grant select on orchestrator.offsets to meanwhile_ingest;
