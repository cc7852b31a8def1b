//! Every table, and which of its rows belong to a tenant. A test holds the list against the schema, so that no new
//! table is forgotten.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{Error, Pool, Role, Settings, Tx};

/// Rows that are deleted in one transaction.
const DELETED_ROWS_MAX: u32 = 2_000;
/// Rows that are read at once: an input, or a history, may have hundreds of kibibytes.
const READ_ROWS: u32 = 20;

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Belonging {
    /// With its schema.
    pub table: &'static str,
    /// The owner.
    pub role: Role,
    pub of: Of,
    /// Columns of bytes that are text.
    texts: &'static [&'static str],
    /// Columns that are told to nobody.
    secrets: &'static [&'static str],
}

/// Whose the rows of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The rows of this condition, in which `$1` is the tenant.
    Tenant(&'static str),
    /// The same, and they stay when all else is deleted.
    Stays(&'static str),
    /// Nobody's, for this reason.
    Nobody(&'static str),
}

const TENANT: Of = Of::Tenant("tenant = $1");
const OF_JOB: Of = Of::Tenant("job in (select seen.job from orchestrator.jobs as seen where seen.tenant = $1)");
const OF_ENDPOINT: Of = Of::Tenant(
    "endpoint in (select known.id from ingest.webhook_endpoints as known where known.tenant = $1)
     or endpoint in (select sent.endpoint from notifier.deliveries as sent where sent.tenant = $1)",
);

const fn rows(table: &'static str, role: Role, of: Of) -> Belonging {
    Belonging { table, role, of, texts: &[], secrets: &[] }
}

const fn texts(belonging: Belonging, texts: &'static [&'static str]) -> Belonging {
    Belonging { texts, ..belonging }
}

const fn secrets(belonging: Belonging, secrets: &'static [&'static str]) -> Belonging {
    Belonging { secrets, ..belonging }
}

/// Every table, in the order in which rows are deleted: what is found by another table's rows goes before them.
pub const BELONGINGS: [Belonging; 35] = [
    rows("orchestrator.holds", Role::Orchestrator, OF_JOB),
    texts(rows("orchestrator.job_events", Role::Orchestrator, OF_JOB), &["lines"]),
    texts(rows("orchestrator.signals", Role::Orchestrator, OF_JOB), &["payload"]),
    rows("orchestrator.watched", Role::Orchestrator, OF_JOB),
    texts(rows("orchestrator.jobs", Role::Orchestrator, TENANT), &["history"]),
    rows("orchestrator.cancels", Role::Orchestrator, TENANT),
    rows("orchestrator.statistics", Role::Orchestrator, TENANT),
    secrets(
        rows(
            "ingest.job_webhooks",
            Role::Ingest,
            Of::Tenant("job in (select known.job from ingest.acceptances as known where known.tenant = $1)"),
        ),
        &["secret"],
    ),
    texts(rows("ingest.acceptances", Role::Ingest, TENANT), &["input"]),
    rows("ingest.idempotency", Role::Ingest, TENANT),
    rows("ingest.callers", Role::Ingest, TENANT),
    rows("notifier.endpoints", Role::Notifier, OF_ENDPOINT),
    rows("notifier.paces", Role::Notifier, OF_ENDPOINT),
    rows(
        "notifier.webhook_requests",
        Role::Notifier,
        Of::Tenant(
            "id in (select asked.id from ingest.webhook_requests as asked
                    join ingest.webhook_endpoints as known on known.id = asked.endpoint where known.tenant = $1)",
        ),
    ),
    rows(
        "notifier.attempts",
        Role::Notifier,
        Of::Tenant("delivery in (select sent.id from notifier.deliveries as sent where sent.tenant = $1)"),
    ),
    texts(rows("notifier.deliveries", Role::Notifier, TENANT), &["body"]),
    rows(
        "ingest.webhook_requests",
        Role::Ingest,
        Of::Tenant("endpoint in (select known.id from ingest.webhook_endpoints as known where known.tenant = $1)"),
    ),
    secrets(rows("ingest.webhook_endpoints", Role::Ingest, TENANT), &["secret", "old_secret"]),
    rows(
        "ingest.settled_letters",
        Role::Ingest,
        Of::Tenant(
            "(topic, partition, \"offset\") in (
                select letter.topic, letter.partition, letter.\"offset\" from orchestrator.dead_letters as letter
                where letter.tenant = $1
             )",
        ),
    ),
    rows("orchestrator.dead_letters", Role::Orchestrator, TENANT),
    secrets(rows("ingest.api_keys", Role::Ingest, TENANT), &["hash"]),
    rows(
        "ingest.audit_results",
        Role::Ingest,
        Of::Stays("id in (select asked.id from ingest.audit as asked where asked.tenant = $1)"),
    ),
    rows("ingest.audit", Role::Ingest, Of::Stays("tenant = $1")),
    rows("ingest.tenants", Role::Ingest, Of::Stays("tenant = $1")),
    rows("ingest.flows", Role::Ingest, Of::Nobody("all tenants share flows")),
    rows("ingest.flags", Role::Ingest, Of::Nobody("all tenants share flags")),
    rows("ingest.schedules", Role::Ingest, Of::Nobody("they are of flows")),
    rows("ingest.offsets", Role::Ingest, Of::Nobody("places in topics")),
    rows("ingest.late_writes", Role::Ingest, Of::Nobody("ids of jobs while their day is dropped")),
    rows("orchestrator.offsets", Role::Orchestrator, Of::Nobody("places in topics")),
    rows("orchestrator.late_writes", Role::Orchestrator, Of::Nobody("ids of jobs while their day is dropped")),
    rows("orchestrator.workers", Role::Orchestrator, Of::Nobody("workers run steps of all tenants")),
    rows("orchestrator.breakers", Role::Orchestrator, Of::Nobody("all tenants share downstreams")),
    rows("orchestrator.watch", Role::Orchestrator, Of::Nobody("how far a look has come")),
    rows("notifier.offsets", Role::Notifier, Of::Nobody("places in topics")),
];

/// The database under each role that owns rows of tenants.
#[derive(Debug)]
pub struct Pools {
    pub ingest: Pool,
    orchestrator: Pool,
    notifier: Pool,
}

impl Pools {
    /// # Errors
    /// The URL is none.
    pub fn open(url: &str) -> Result<Self, Error> {
        let open = |role| Pool::open(&Settings::new(url), role);
        let (ingest, orchestrator) = (open(Role::Ingest)?, open(Role::Orchestrator)?);
        Ok(Self { ingest, orchestrator, notifier: open(Role::Notifier)? })
    }

    fn of(&self, role: Role) -> &Pool {
        match role {
            Role::Orchestrator => &self.orchestrator,
            Role::Notifier => &self.notifier,
            Role::Ingest | Role::Relay => &self.ingest,
        }
    }
}

/// Whole tables are read: by design nothing is indexed by its tenant.
pub(super) async fn with_patience(tx: &mut Tx) -> Result<(), Error> {
    let patience = "set local statement_timeout = '1h'; set local idle_in_transaction_session_timeout = 0";
    sqlx::raw_sql(patience).execute(tx.raw()).await?;
    Ok(())
}

/// Tells every row of the tenant as a line of JSON, `{"table": ..., "row": {...}}`, one table after the other, each as
/// it is at one moment. Holds a few rows at a time, and waits for `tell`.
///
/// # Errors
/// The error of Postgres, or that of `tell`, on which it ends.
pub async fn export<E: From<Error>>(
    pools: &Pools,
    tenant: &str,
    mut tell: impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    for belonging in BELONGINGS {
        let (Of::Tenant(of) | Of::Stays(of)) = belonging.of else { continue };
        let Belonging { table, role, texts, secrets, .. } = belonging;
        let secrets: String = secrets.iter().map(|column| format!(" - '{column}'")).collect();
        let text = |column: &&str| format!(" || jsonb_build_object('{column}', convert_from({column}, 'UTF8'))");
        let texts: String = texts.iter().map(text).collect();
        // A cursor takes no parameters. Safe, here and below: the text consists of our own constants and numbers.
        let of = of.replace("$1", "current_setting('meanwhile.tenant')");
        let declare = format!(
            "declare lines no scroll cursor for
             select jsonb_build_object('table', '{table}', 'row', to_jsonb(told){secrets}{texts})::text
             from {table} as told where {of}"
        );
        let mut tx = pools.of(role).begin().await?;
        with_patience(&mut tx).await?;
        let set = sqlx::query("select set_config('meanwhile.tenant', $1, true)").bind(tenant);
        set.execute(tx.raw()).await.map_err(Error::from)?;
        sqlx::query(AssertSqlSafe(declare)).execute(tx.raw()).await.map_err(Error::from)?;
        loop {
            let fetch = format!("fetch {READ_ROWS} from lines");
            let lines: Vec<String> =
                sqlx::query_scalar(AssertSqlSafe(fetch)).fetch_all(tx.raw()).await.map_err(Error::from)?;
            if lines.is_empty() {
                break;
            }
            lines.iter().try_for_each(|line| tell(line))?;
        }
        tx.rollback().await?;
    }
    Ok(())
}

/// How many rows of the tenant each table has that would be deleted.
pub async fn count(pools: &Pools, tenant: &str) -> Result<Vec<(&'static str, u64)>, Error> {
    let mut counts = Vec::new();
    for Belonging { table, role, of, .. } in BELONGINGS {
        let Of::Tenant(of) = of else { continue };
        let mut tx = pools.of(role).begin().await?;
        with_patience(&mut tx).await?;
        let select = format!("select count(*) from {table} where {of}");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(select)).bind(tenant).fetch_one(tx.raw()).await?;
        if rows > 0 {
            counts.push((table, rows.unsigned_abs()));
        }
    }
    Ok(counts)
}

/// Deletes every row of the tenant that does not stay, by batches, each in a transaction of its own; begun anew, it
/// goes on where it stopped. Tells of each batch. No job of the tenant may be open, and none may begin.
pub async fn delete(pools: &Pools, tenant: &str, mut tell: impl FnMut(&str, u64)) -> Result<(), Error> {
    for Belonging { table, role, of, .. } in BELONGINGS {
        if let Some(walk) = WALKS.iter().find(|walk| walk.table == table) {
            walk_through(pools.of(role), walk, tenant, &mut tell).await?;
            continue;
        }
        let goes_along = WALKS.iter().any(|walk| walk.with.iter().any(|(with, _)| *with == table));
        let (Of::Tenant(of), false) = (of, goes_along) else { continue };
        let statement = format!(
            "delete from {table} where ctid = any (array(select ctid from {table} where {of} limit {DELETED_ROWS_MAX}))"
        );
        loop {
            let mut tx = pools.of(role).begin().await?;
            with_patience(&mut tx).await?;
            let gone = sqlx::query(AssertSqlSafe(statement.clone())).bind(tenant).execute(tx.raw()).await?;
            tx.commit().await?;
            if gone.rows_affected() > 0 {
                tell(table, gone.rows_affected());
            }
            if gone.rows_affected() < u64::from(DELETED_ROWS_MAX) {
                break;
            }
        }
    }
    Ok(())
}

/// A large table that is gone through once, by its key; rows of other tables go with its own.
struct Walk {
    table: &'static str,
    key: &'static str,
    with: &'static [(&'static str, &'static str)],
}

const WALKS: [Walk; 3] = [
    Walk {
        table: "orchestrator.jobs",
        key: "job",
        with: &[
            ("orchestrator.holds", "job"),
            ("orchestrator.job_events", "job"),
            ("orchestrator.signals", "job"),
            ("orchestrator.watched", "job"),
        ],
    },
    Walk { table: "ingest.acceptances", key: "job", with: &[("ingest.job_webhooks", "job")] },
    Walk { table: "notifier.deliveries", key: "id", with: &[("notifier.attempts", "delivery")] },
];

async fn walk_through(pool: &Pool, walk: &Walk, tenant: &str, tell: &mut impl FnMut(&str, u64)) -> Result<(), Error> {
    let Walk { table, key, with } = walk;
    let page =
        format!("select {key} from {table} where tenant = $1 and {key} > $2 order by {key} limit {DELETED_ROWS_MAX}");
    let mut after = Uuid::nil();
    loop {
        let mut tx = pool.begin().await?;
        with_patience(&mut tx).await?;
        let keys: Vec<Uuid> =
            sqlx::query_scalar(AssertSqlSafe(page.clone())).bind(tenant).bind(after).fetch_all(tx.raw()).await?;
        let Some(last) = keys.last() else { return Ok(()) };
        for (of, column) in with.iter().chain([&(*table, *key)]) {
            let delete = format!("delete from {of} where {column} = any ($1)");
            let gone = sqlx::query(AssertSqlSafe(delete)).bind(&keys).execute(tx.raw()).await?.rows_affected();
            if gone > 0 {
                tell(of, gone);
            }
        }
        tx.commit().await?;
        after = *last;
    }
}
