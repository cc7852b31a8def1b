select
    accepted.tenant as "tenant?",
    accepted.flow as "flow?",
    accepted.version as "version?",
    accepted.key as "key?",
    accepted.correlation_id as "correlation_id?",
    accepted.input as "input?",
    (extract(epoch from accepted.accepted_at) * 1000)::bigint as "accepted_at_ms?",
    (extract(epoch from accepted.deadline) * 1000)::bigint as "deadline_ms?",
    accepted.steps_total as "steps_total?",
    accepted.trace_id as "trace_id?",
    accepted.retry_of as "retry_of?",
    seen.tenant as "seen_tenant?",
    seen.flow as "seen_flow?",
    seen.version as "seen_version?",
    seen.key as "seen_key?",
    seen.correlation_id as "seen_correlation_id?",
    seen.status as "seen_status?",
    seen.cursor_partition as "seen_partition?",
    seen.cursor as "seen_cursor?",
    seen.steps_total as "seen_steps_total?",
    (extract(epoch from seen.accepted_at) * 1000)::bigint as "seen_accepted_at_ms?",
    (extract(epoch from seen.updated_at) * 1000)::bigint as "seen_updated_at_ms?",
    seen.trace_id as "seen_trace_id?",
    seen.retry_of as "seen_retry_of?",
    seen.history || coalesce(
        case when seen.history_cursor < seen.cursor then (
            select string_agg(more.lines, ''::bytea order by more.cursor)
            from orchestrator.job_events as more
            where more.job = seen.job
        ) end,
        ''::bytea
    ) as "seen_history?",
    cancel.requested_by as "cancel_by?",
    cancel.reason as "cancel_reason?",
    (extract(epoch from cancel.requested_at) * 1000)::bigint as "cancel_at_ms?"
from (select $1::uuid as job) as asked
left join ingest.acceptances as accepted on accepted.job = asked.job and accepted.tenant = $2
left join orchestrator.jobs as seen on seen.job = asked.job and seen.tenant = $2
left join orchestrator.cancels as cancel on cancel.job = asked.job and cancel.tenant = $2
