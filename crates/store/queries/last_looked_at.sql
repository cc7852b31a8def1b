-- The last of the $5 jobs that a walk of list_jobs.sql looks at; none where it comes to its end before.
select job as "job!" from (
    (
        select job from ingest.acceptances
        where not $6::boolean and $3::text is not null
            and hashtextextended(correlation_id, 0) = hashtextextended($3, 0) and job >= $1 and job < $2
        order by job desc offset $5::bigint - 1 limit 1
    )
    union all
    (
        select job from ingest.acceptances
        where not $6 and $3::text is null and $4::text is not null
            and hashtextextended(key, 0) = hashtextextended($4, 0) and key <> job::text and job >= $1 and job < $2
        order by job desc offset $5::bigint - 1 limit 1
    )
    union all
    (
        select job from ingest.acceptances
        where not $6 and $3::text is null and $4::text is null and job >= $1 and job < $2
        order by job desc offset $5::bigint - 1 limit 1
    )
    union all
    (
        select job from orchestrator.jobs
        where $6 and stuck_since is not null and job >= $1 and job < $2
        order by job desc offset $5::bigint - 1 limit 1
    )
) as looked
