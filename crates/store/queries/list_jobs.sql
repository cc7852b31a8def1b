select
    job, tenant, flow, version, key, correlation_id, status, cursor, steps_total,
    (extract(epoch from accepted_at) * 1000)::bigint as "accepted_at_ms!",
    (extract(epoch from updated_at) * 1000)::bigint as "updated_at_ms!",
    trace_id, retry_of
from orchestrator.jobs
where tenant = $1
  and ($2::text is null or flow = $2)
  and ($3::text is null or status = $3)
  and ($4::text is null or key = $4)
  and ($5::text is null or correlation_id = $5)
  and ($6::bigint is null or accepted_at >= to_timestamp($6::bigint / 1000.0))
  and ($7::uuid is null or job < $7)
order by job desc
limit $8
