-- Old entries of the audit log go, and nothing else does: ingest owns the tables and may not delete from them. This
-- function deletes with the rights of whoever migrates, and keeps the last 30 days whatever it is asked, so that no
-- process can wipe out its own traces. Ids are UUIDv7: they begin with the milliseconds since the Unix epoch.
create function ingest.retire_audit(keep_days integer, rows_max integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    bound uuid := (
        lpad(to_hex((
            extract(epoch from now() - make_interval(days => greatest(keep_days, 30))) * 1000
        )::bigint), 12, '0') || repeat('0', 20)
    )::uuid;
    deleted bigint;
begin
    with old as (select id from ingest.audit where id < bound order by id limit rows_max),
    answers as (delete from ingest.audit_results where id in (select id from old))
    delete from ingest.audit where id in (select id from old);
    get diagnostics deleted = row_count;
    return deleted;
end
$$;
revoke all on function ingest.retire_audit from public;
grant execute on function ingest.retire_audit to meanwhile_ingest;

-- Whoever migrates need not be a superuser.
do $$
begin
    execute format('grant usage on schema ingest to %I', current_user);
    execute format('grant select, delete on ingest.audit, ingest.audit_results to %I', current_user);
end
$$;
