-- One role per service. Roles belong to the cluster, not to the database, so another database's migration may be
-- creating them at this moment: whoever comes second waits for the first and finds them there.
do $$
declare
    service text;
begin
    foreach service in array array[
        'meanwhile_ingest', 'meanwhile_relay', 'meanwhile_orchestrator', 'meanwhile_notifier'
    ] loop
        if not exists (select from pg_roles where rolname = service) then
            begin
                execute format('create role %I nologin', service);
            exception when duplicate_object or unique_violation then
                null;
            end;
        end if;
        -- Needed to give tables to the role and to act as it; a superuser may do both anyway.
        if not pg_has_role(current_user, service, 'member') then
            begin
                execute format('grant %I to current_user', service);
            exception when unique_violation then
                null;
            end;
        end if;
    end loop;
end
$$;

grant usage on schema meanwhile to meanwhile_ingest, meanwhile_relay, meanwhile_orchestrator, meanwhile_notifier;
grant select on meanwhile.migrations to meanwhile_ingest, meanwhile_relay, meanwhile_orchestrator, meanwhile_notifier;
