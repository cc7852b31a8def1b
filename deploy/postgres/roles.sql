-- For a database administrator, before `meanwhile migrate`, where the login that migrates may not create roles itself.
-- Roles belong to the cluster. Run it as a superuser, in the database that Meanwhile is to use:
--
--   psql -v ON_ERROR_STOP=1 -v password="..." -f roles.sql meanwhile
--
-- One role per service owns what the service owns; nobody logs in as one. A service logs in with its DATABASE_URL and
-- acts as its role from the first statement, so a login must be a member of the roles that it is used for. Here one
-- login serves all services; make one per service, each a member of one role, to keep them apart by password too.
create role meanwhile_ingest nologin;
create role meanwhile_relay nologin;
create role meanwhile_orchestrator nologin;
create role meanwhile_notifier nologin;

-- REPLICATION is needed by the login of `relay` and of `migrate` only, CREATE on the database by that of `migrate`.
create role meanwhile login replication password :'password'
    in role meanwhile_ingest, meanwhile_relay, meanwhile_orchestrator, meanwhile_notifier;
select format('grant create on database %I to meanwhile', current_database()) \gexec
