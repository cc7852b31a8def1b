-- Jobs that were written in an old day while it was looked through for rows that are still needed. Only such a day has
-- the trigger, so writes to other days cost nothing more.
create table ingest.late_writes (job uuid primary key);
create function ingest.note_late_write() returns trigger language plpgsql as $$
begin
    insert into ingest.late_writes values (new.job) on conflict do nothing;
    return null;
end
$$;
alter table ingest.late_writes owner to meanwhile_ingest;
alter function ingest.note_late_write() owner to meanwhile_ingest;

create table orchestrator.late_writes (job uuid primary key);
create function orchestrator.note_late_write() returns trigger language plpgsql as $$
begin
    insert into orchestrator.late_writes values (new.job) on conflict do nothing;
    return null;
end
$$;
alter table orchestrator.late_writes owner to meanwhile_orchestrator;
alter function orchestrator.note_late_write() owner to meanwhile_orchestrator;
