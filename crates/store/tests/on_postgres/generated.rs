//! A database that looks as after a month of jobs, made by Postgres itself.

use sqlx::{AssertSqlSafe, PgConnection};
use store::Role;

use crate::database::Database;

/// Days of jobs, the last one of which is today's.
pub(crate) const DAYS: i64 = 40;

/// Fills the tables with so many jobs, and one hold, one dead letter and one row of the outbox for every tenth of them.
pub(crate) async fn fill(database: &Database, jobs: i64) {
    let mut connection = database.superuser().await;
    let today: i64 = sqlx::query_scalar("select floor(extract(epoch from now()) / 86400)::bigint")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    for day in today - DAYS + 1..=today {
        make_day(&mut connection, day).await;
    }
    store::outbox::ensure_partitions(&database.pool(Role::Relay), 1).await.unwrap();
    // By portions, so that no statement is in memory as a whole.
    let portion = 500_000;
    for first in (0..jobs).step_by(portion) {
        let last = (first + i64::try_from(portion).unwrap()).min(jobs) - 1;
        run(&mut connection, &jobs_sql(first, last, jobs, today)).await;
        run(&mut connection, &others_sql(first, last)).await;
    }
    run(&mut connection, "drop table generated; vacuum analyze").await;
}

async fn run(connection: &mut PgConnection, statements: &str) {
    for statement in statements.split(';').filter(|statement| !statement.trim().is_empty()) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut *connection).await.unwrap();
    }
}

/// The partitions of a day.
async fn make_day(connection: &mut PgConnection, day: i64) {
    let bound = |day: i64| format!("{}-0000-0000-000000000000", hyphened(day * 86_400_000));
    for (table, role) in [("ingest.acceptances", "meanwhile_ingest"), ("orchestrator.jobs", "meanwhile_orchestrator")] {
        run(
            connection,
            &format!(
                "create table {table}_p{day} partition of {table} for values from ('{}') to ('{}');
                 alter table {table}_p{day} owner to {role}",
                bound(day),
                bound(day + 1)
            ),
        )
        .await;
    }
}

/// The first part of a UUIDv7 of that time.
fn hyphened(at_ms: i64) -> String {
    let digits = format!("{at_ms:012x}");
    format!("{}-{}", &digits[..8], &digits[8..])
}

/// Jobs spread evenly over the days, all but a few of which succeeded.
fn jobs_sql(first: i64, last: i64, jobs: i64, today: i64) -> String {
    let begin_ms = (today - DAYS + 1) * 86_400_000;
    format!(
        "create temporary table if not exists generated (number bigint, at_ms bigint, job uuid, status text);
         truncate generated;
         insert into generated
            select number, at_ms,
                   (lpad(to_hex(at_ms), 12, '0') || '7' || substr(md5(number::text), 1, 3) || '8'
                    || substr(md5(number::text), 4, 15))::uuid,
                   case when number % 1000 = 0 then 'needs_attention' when number % 50 = 1 then 'failed'
                        else 'succeeded' end
            from (
                select number, {begin_ms} + (number::numeric * {DAYS} * 86400000 / {jobs})::bigint as at_ms
                from generate_series({first}, {last}) as number
            ) as spread;
         insert into ingest.acceptances (
            job, tenant, flow, version, key, correlation_id, input, accepted_at, steps_total
         )
         select job, 'default', 'order', 'v1', 'customer-' || number % 10000, 'correlation-' || number,
                repeat('x', 200)::bytea, to_timestamp(at_ms / 1000.0), 3
         from generated;
         insert into orchestrator.jobs (
            job, tenant, flow, version, key, correlation_id, status, cursor_partition, cursor, steps_total,
            accepted_at, updated_at, history
         )
         select job, 'default', 'order', 'v1', 'customer-' || number % 10000, 'correlation-' || number, status,
                number % 6, number, 3, to_timestamp(at_ms / 1000.0), to_timestamp(at_ms / 1000.0),
                convert_to(repeat(
                    '{{\"cursor\":1,\"kind\":\"step.succeeded\",\"status\":\"running\",\"hop\":1,\"at_ms\":1}}'
                    || chr(10), 5
                ), 'UTF8')
         from generated"
    )
}

fn others_sql(first: i64, last: i64) -> String {
    format!(
        "insert into orchestrator.job_events (job, cursor, lines)
         select job, number, convert_to(
            '{{\"cursor\":1,\"kind\":\"step.succeeded\",\"status\":\"running\",\"hop\":1,\"at_ms\":1}}', 'UTF8'
         ) from generated where number % 10 = 0;
         insert into ingest.idempotency (tenant, route, key, fingerprint, job, expires_at)
         select 'default', 'order', number::text, 'f', job, now() + interval '1 hour'
         from generated where number % 10 = 0;
         insert into orchestrator.holds (job, branch, hop, reason, release_at, topic, key, headers, worker, place)
         select job, '', 1, reason,
                case when reason in ('backoff', 'room') then now() + number * interval '1 millisecond' end,
                'm.steps.q', number::text::bytea, '',
                case reason when 'running' then 'w-' || number % 7 end, case reason when 'turn' then 1 end
         from (
            select number, job, case when number % 1000 = 0 then 'attention' when number % 1000 = 10 then 'running'
                                     when number % 1000 = 20 then 'turn' when number % 1000 = 30 then 'room'
                                     else 'backoff' end as reason
            from generated where number % 10 = 0
         ) as resting;
         insert into orchestrator.signals (job, name, id, payload, used_at)
         select job, 'yes', number::text, 'x', case when number % 20 = 0 then now() end
         from generated where number % 10 = 0;
         insert into orchestrator.dead_letters (
            topic, partition, \"offset\", class, reason, attempts, headers, value_bytes, at
         )
         select 'm.dead-letters', number % 6, number, 'unreadable', 'x', 1, '', 1, now() - number * interval '1 second'
         from generated where number % 10 = 0;
         insert into ingest.webhook_endpoints (id, tenant, url, description, events, kind, secret)
         select md5(number::text)::uuid, 'default', 'https://example.com', '', '{{*}}', 'hmac', ''
         from generate_series(0, 9) as number on conflict do nothing;
         insert into ingest.job_webhooks (job, receiver, url, events)
         select job, job, 'https://example.com', '{{*}}' from generated where number % 10 = 0;
         insert into notifier.deliveries (id, endpoint, tenant, job, type, body, status)
         select job, md5((number / 10 % 10)::text)::uuid, 'default', job, 'job.succeeded', 'x',
                case when number % 1000 = 0 then 'pending' when number % 100 = 0 then 'failed' else 'delivered' end
         from generated where number % 10 = 0;
         insert into notifier.attempts (delivery, attempt, duration_ms, answer)
         select job, 1, 1, '' from generated where number % 10 = 0;
         insert into outbox.messages (topic, value, headers)
         select 'm.events', 'x', '' from generate_series({first}, {last}) as number where number % 10 = 0"
    )
}
