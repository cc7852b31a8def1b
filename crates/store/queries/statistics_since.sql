select step, accepted, succeeded, skipped, failed, cancelled, duration_sum_ms, durations
from orchestrator.statistics
where tenant = $1 and flow = $2 and minute >= date_trunc('minute', to_timestamp($3::bigint / 1000.0))
