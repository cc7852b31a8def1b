//! Takes away what is kept for a shorter time than the deployment's own: by rules of tenants (`ingest.tenants`) and of
//! flows (`retention`). Days that hold other jobs stay, so rows go one by one, by pages, with a pause after each.
//!
//! The acceptance goes first, once the job's end is as long ago as the shorter of its rules says; where a request has
//! asked for a webhook of its job, not before that is done with. Whatever else the job has left goes once its
//! acceptance is gone. Nobody looks at anything where there is no rule.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::retention::{FINAL, bound};
use crate::{Error, Pool, Role, partitions};

/// Rows that are looked at in one statement.
const PAGE_ROWS: u32 = 5_000;

/// The shorter of a job's rules in seconds, in SQL; null without one. `of`: the row that names tenant, flow and
/// version.
pub(crate) fn rule(of: &str) -> String {
    format!(
        "least(
            (select rule.keep_s from ingest.tenants as rule where rule.tenant = {of}.tenant),
            (select rule.keep_s from ingest.flows as rule where rule.flow = {of}.flow and rule.version = {of}.version)
         )"
    )
}

/// True in SQL for a row of the projection whose day may go without it: its job ended so long ago as the longer of
/// `keep_ms` and its rule says, and `more_ms` before. (Shorter rules are for this module.)
pub(crate) fn is_done(of: &str, keep_ms: i64, more_ms: i64) -> String {
    format!(
        "coalesce({of}.status in {FINAL} and {of}.updated_at < now()
            - (greatest({} * 1000, {keep_ms}) + {more_ms}) * interval '1 millisecond', false)",
        rule(of),
    )
}

/// Deletes the acceptances of jobs whose rule says so, and the webhooks that were asked for with them. Returns the
/// count of jobs.
pub async fn acceptances(pool: &Pool) -> Result<u64, Error> {
    debug_assert_eq!(pool.role(), Role::Ingest, "only the owner deletes");
    let due = format!(
        "select page.key from page join orchestrator.jobs as seen on seen.job = page.key
         where seen.status in {FINAL} and seen.updated_at < now() - {} * interval '1 second' and {TOLD}",
        rule("seen"),
    );
    let what = Sweep {
        page: "select job as key from ingest.acceptances where job > $1 and job < $2 order by job",
        due: &due,
        deletes: &["ingest.job_webhooks where job", "ingest.acceptances where job"],
    };
    sweep(pool, &what).await
}

/// Deletes what the orchestrator knows of such jobs, once their acceptances are gone.
pub async fn jobs(pool: &Pool) -> Result<u64, Error> {
    debug_assert_eq!(pool.role(), Role::Orchestrator, "only the owner deletes");
    let due = format!(
        "select page.key from page
         where page.status in {FINAL} and page.updated_at < now() - {} * interval '1 second' and {GONE}",
        rule("page"),
    );
    let what = Sweep {
        page: "select job as key, job, tenant, flow, version, status, updated_at from orchestrator.jobs
               where job > $1 and job < $2 order by job",
        due: &due,
        deletes: &[
            "orchestrator.job_events where job",
            "orchestrator.signals where job",
            "orchestrator.cancels where job",
            "orchestrator.jobs where job",
        ],
    };
    sweep(pool, &what).await
}

/// Deletes the deliveries of jobs whose acceptances are gone, but for those that are still to be sent.
pub async fn deliveries(pool: &Pool) -> Result<u64, Error> {
    debug_assert_eq!(pool.role(), Role::Notifier, "only the owner deletes");
    let what = Sweep {
        page: "select id as key, job, status from notifier.deliveries where id > $1 and id < $2 order by id",
        due: &format!("select page.key from page where page.job is not null and page.status <> 'pending' and {GONE}"),
        deletes: &["notifier.attempts where delivery", "notifier.deliveries where id"],
    };
    sweep(pool, &what).await
}

/// True in SQL once nobody needs the webhook that was asked for with a job: the notifier has taken in the job's last
/// event, and no delivery is still to be sent.
const TOLD: &str = "(
    not exists (select asked.job from ingest.job_webhooks as asked where asked.job = seen.job)
    or (
        exists (
            select from notifier.offsets as place
            where place.partition = seen.cursor_partition and place.next_offset > seen.cursor
        )
        and not exists (
            select from notifier.deliveries as sent
            where sent.job = seen.job and sent.of_job and sent.status = 'pending'
        )
    )
)";

/// True in SQL once the acceptance of a page's row is gone. It was there before any other trace of the job.
const GONE: &str = "not exists (select accepted.job from ingest.acceptances as accepted where accepted.job = page.job)";

struct Sweep<'a> {
    /// Rows above a key and below another one.
    page: &'a str,
    /// The keys of the page that go.
    due: &'a str,
    /// The tables and columns in which they do.
    deletes: &'a [&'a str],
}

async fn sweep(pool: &Pool, what: &Sweep<'_>) -> Result<u64, Error> {
    let Some(shortest_s) = shortest_s(pool).await? else { return Ok(0) };
    let below = bound(partitions::now_ms(pool).await? - shortest_s.saturating_mul(1_000));
    let delete = |(number, target): (usize, &&str)| {
        format!("gone{number} as (delete from {target} = any (array(select key from due)))")
    };
    let deletes: Vec<String> = what.deletes.iter().enumerate().map(delete).collect();
    let Sweep { page, due, .. } = what;
    let statement = format!(
        "with page as materialized ({page} limit {PAGE_ROWS}), due as materialized ({due}), {}
         select (select count(*) from due), (select key from page order by key desc limit 1)",
        deletes.join(", "),
    );
    let (mut gone, mut after) = (0, Uuid::nil());
    loop {
        // Safe: the text consists of our own constants and numbers only.
        let (count, last): (i64, Option<Uuid>) =
            sqlx::query_as(AssertSqlSafe(statement.clone())).bind(after).bind(below).fetch_one(pool.raw()).await?;
        gone += count.unsigned_abs();
        let Some(last) = last else { return Ok(gone) };
        after = last;
        partitions::pause(pool).await?;
    }
}

/// The shortest time of all rules, in seconds; none without a rule.
async fn shortest_s(pool: &Pool) -> Result<Option<i64>, Error> {
    let shortest = sqlx::query_scalar!(
        r#"select least(
            (select min(keep_s) from ingest.tenants), (select min(keep_s) from ingest.flows)
         ) as "keep_s?""#,
    )
    .fetch_one(pool.raw())
    .await?;
    Ok(shortest)
}
