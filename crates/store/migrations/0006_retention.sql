-- The projection is partitioned as the acceptances are, by the time inside the job's id, so that retention drops whole
-- days. What is there already becomes the default partition, where it stays until it is no longer kept.
alter table orchestrator.jobs rename to jobs_default;
alter table orchestrator.jobs_default rename constraint jobs_pkey to jobs_default_pkey;
alter index orchestrator.jobs_by_flow rename to jobs_default_by_flow;
alter index orchestrator.jobs_by_correlation rename to jobs_default_by_correlation;

create table orchestrator.jobs (
    like orchestrator.jobs_default,
    primary key (job)
) partition by range (job);
create index jobs_by_flow on orchestrator.jobs (tenant, flow, job);
create index jobs_by_correlation on orchestrator.jobs (tenant, correlation_id);
alter table orchestrator.jobs attach partition orchestrator.jobs_default default;

alter table orchestrator.jobs owner to meanwhile_orchestrator;
grant select on orchestrator.jobs to meanwhile_ingest;
revoke select on orchestrator.jobs_default from meanwhile_ingest;
