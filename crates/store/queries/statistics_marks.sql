-- Of each of these jobs ($1), how far it is projected, if it is. Each job is looked up by itself (limit): a join would
-- read the jobs of all days.
select
    seen.job as "job!",
    (extract(epoch from now()) * 1000)::bigint as "now_ms!",
    was.cursor as "cursor?",
    (extract(epoch from was.step_since) * 1000)::bigint as "step_since_ms?",
    (extract(epoch from was.begun_at) * 1000)::bigint as "begun_ms?"
from unnest($1::uuid[]) as seen (job)
left join lateral (
    select jobs.cursor, jobs.step_since, jobs.begun_at from orchestrator.jobs as jobs where jobs.job = seen.job limit 1
) as was on true
