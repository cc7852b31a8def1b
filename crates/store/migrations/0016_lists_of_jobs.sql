-- By which lists of jobs find those of a correlation id or of an ordering key; by anything else they walk the primary
-- key, which is by time. Hashes, since either text may be longer than an index entry. A job without an ordering key of
-- its own has its id in the place, and no entry.
create index acceptances_by_correlation on ingest.acceptances (hashtextextended(correlation_id, 0), job);
create index acceptances_by_key on ingest.acceptances (hashtextextended(key, 0), job) where key <> job::text;
