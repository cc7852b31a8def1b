//! `meanwhile tenants`: what is set for tenants; export and delete of all that belongs to one. In the database.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use events::cancel::Cancel;
use events::time::rfc3339;
use events::wait::Wait;
use flow::definition::parse_duration_ms;
use flow::id::JobId;
use ingest::auth::is_tenant;
use service_kit::config::{Sources, load};
use store::tenants::{self, Pools, Tenant};

use crate::cli::tenants::{DeleteArgs, TenantsCommand};
use crate::in_database::{InDatabase, SUBJECT};
use crate::table::table;

/// The reason of the cancels, for people.
const REASON: &str = "the tenant is deleted";
/// The shortest time that a tenant's jobs may be kept, in seconds.
const KEEP_S_MIN: i64 = 3_600;
/// Jobs that are cancelled in one transaction.
const CANCELS_MAX: u32 = 500;
/// The pause between two looks at jobs that have not ended.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// `meanwhile tenants`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(command: TenantsCommand, sources: &Sources) -> anyhow::Result<ExitCode> {
    let database = InDatabase::open(sources).await?;
    match command {
        TenantsCommand::List => {
            let tenants = tenants::list(&database.pool).await?;
            match tenants.is_empty() {
                true => println!("nothing is set for any tenant"),
                false => print!("{}", listed(&tenants)),
            }
        }
        TenantsCommand::Set { tenant, keep } => {
            let keep_s = keep_s(&keep)?;
            audited(&database, &tenant, "tenant.set", tenants::set_keep(&database.pool, &tenant, keep_s)).await?;
            println!("jobs of {tenant} are kept for {keep}");
        }
        TenantsCommand::Disable { tenant } => {
            refuse_own(sources, &tenant)?;
            let disabling = tenants::disable(&database.pool, &tenant, SUBJECT);
            audited(&database, &tenant, "tenant.disable", disabling).await?;
            println!("{tenant} is disabled: its requests get 403, and its keys are revoked");
        }
        TenantsCommand::Enable { tenant } => {
            match audited(&database, &tenant, "tenant.enable", tenants::enable(&database.pool, &tenant)).await? {
                true => println!("{tenant} is enabled; make new keys for it"),
                false => println!("{tenant} was not disabled"),
            }
        }
        TenantsCommand::Export { tenant } => export(&database, &tenant).await?,
        TenantsCommand::Delete(args) => return delete(&database, args, sources).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Does something about a tenant, in the audit log.
async fn audited<T>(
    database: &InDatabase,
    tenant: &str,
    action: &str,
    deed: impl Future<Output = Result<T, store::Error>>,
) -> anyhow::Result<T> {
    ensure!(is_tenant(tenant), "`{tenant}` is no name of a tenant: it has letters, digits, `.`, `_` and `-`");
    let entry = database.begin(tenant, action, tenant).await?;
    let done = deed.await?;
    database.end(entry, 200).await?;
    Ok(done)
}

fn keep_s(text: &str) -> anyhow::Result<Option<i64>> {
    if text == "default" {
        return Ok(None);
    }
    let keep_s = parse_duration_ms(text).and_then(|ms| i64::try_from(ms / 1_000).ok());
    let keep_s = keep_s.filter(|keep_s| *keep_s >= KEEP_S_MIN);
    let told = || format!("--keep: `{text}` is neither `default` nor a time of 1h or more, such as 12h or 90d");
    keep_s.map(Some).with_context(told)
}

/// The deployment's own tenant has what all share.
fn refuse_own(sources: &Sources, tenant: &str) -> anyhow::Result<()> {
    let config: ingest::config::Config = load(ingest::config::SECTION, ingest::config::DEFAULT, sources)?;
    ensure!(config.default_tenant != tenant, "`{tenant}` is the deployment's own tenant (ingest.default_tenant)");
    Ok(())
}

fn listed(tenants: &[Tenant]) -> String {
    let row = |tenant: &Tenant| {
        let time = |at_ms: Option<i64>| at_ms.map(rfc3339).unwrap_or_default();
        let keep = tenant.keep_s.map_or_else(|| "default".to_owned(), |keep_s| format!("{keep_s}s"));
        [tenant.tenant.clone(), keep, time(tenant.disabled_at_ms), time(tenant.deleted_at_ms)]
    };
    table(["TENANT", "KEEP", "DISABLED", "DELETED"], tenants.iter().map(row).collect())
}

async fn export(database: &InDatabase, tenant: &str) -> anyhow::Result<()> {
    let pools = Pools::open(database.shared.database_url()?)?;
    ensure!(is_tenant(tenant), "`{tenant}` is no name of a tenant: it has letters, digits, `.`, `_` and `-`");
    let entry = database.begin(tenant, "tenant.export", tenant).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    tenants::export(&pools, tenant, |line| writeln!(out, "{line}").map_err(anyhow::Error::from)).await?;
    out.flush()?;
    database.end(entry, 200).await
}

/// A tenant that goes.
struct Leaving<'a> {
    database: &'a InDatabase,
    pools: &'a Pools,
    tenant: &'a str,
    patience: Duration,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the command's answer")]
async fn delete(database: &InDatabase, args: DeleteArgs, sources: &Sources) -> anyhow::Result<ExitCode> {
    let DeleteArgs { tenant, yes, wait } = args;
    ensure!(is_tenant(&tenant), "`{tenant}` is no name of a tenant: it has letters, digits, `.`, `_` and `-`");
    refuse_own(sources, &tenant)?;
    let patience = parse_duration_ms(&wait).with_context(|| format!("--wait: `{wait}` is no time such as 10m"))?;
    let pools = Pools::open(database.shared.database_url()?)?;
    for (table, rows) in tenants::count(&pools, &tenant).await? {
        eprintln!("{table}: {rows} rows");
    }
    if !yes && !is_meant(&tenant)? {
        bail!("nothing is deleted");
    }
    let entry = database.begin(&tenant, "tenant.delete", &tenant).await?;
    tenants::disable(&database.pool, &tenant, SUBJECT).await?;
    let leaving = Leaving { database, pools: &pools, tenant: &tenant, patience: Duration::from_millis(patience) };
    let open = leaving.go().await?;
    if open > 0 {
        database.end(entry, 409).await?;
        eprintln!("error: {open} jobs have not ended in {wait}: the tenant stays disabled; run this again");
        return Ok(ExitCode::FAILURE);
    }
    tenants::note_deleted(&database.pool, &tenant).await?;
    database.end(entry, 200).await?;
    println!("all data of {tenant} is deleted; it stays disabled, and its entries in the audit log stay");
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "a question to whoever runs this")]
fn is_meant(tenant: &str) -> anyhow::Result<bool> {
    ensure!(io::stdin().is_terminal(), "nobody can be asked here: say --yes");
    eprint!("all of it goes for good. The name of the tenant, to confirm: ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == tenant)
}

impl Leaving<'_> {
    /// Deletes until nothing is left: a request may have been under way when the tenant was disabled. Returns how many
    /// jobs have not ended in time.
    #[expect(clippy::print_stderr, reason = "progress of a command")]
    async fn go(&self) -> anyhow::Result<u64> {
        loop {
            let open = self.end_jobs().await?;
            if open > 0 {
                return Ok(open);
            }
            tenants::delete(self.pools, self.tenant, |table, rows| eprintln!("{table}: {rows} rows deleted")).await?;
            if tenants::count(self.pools, self.tenant).await?.is_empty() {
                return Ok(0);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Cancels all jobs that are open, and waits for their ends. Returns how many have not ended in time. Parked ones
    /// stay: their tokens lie in the database, and go with the rest.
    #[expect(clippy::print_stderr, reason = "progress of a command")]
    async fn end_jobs(&self) -> anyhow::Result<u64> {
        let mut jobs: Vec<JobId> = Vec::new();
        loop {
            let open = tenants::open_jobs(&self.database.pool, self.tenant, jobs.last().copied(), CANCELS_MAX).await?;
            if open.is_empty() {
                break;
            }
            self.cancel(&open).await?;
            jobs.extend(open);
            eprintln!("{} jobs are to be cancelled so far", jobs.len());
        }
        let begun = tokio::time::Instant::now();
        loop {
            let open = tenants::still_open(&self.database.pool, &jobs).await?;
            if open == 0 || begun.elapsed() > self.patience {
                return Ok(open);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// As the API does it: a cancel for workers, and a signal for holds.
    async fn cancel(&self, jobs: &[JobId]) -> anyhow::Result<()> {
        let InDatabase { pool, writer, trace, clock, ids, .. } = self.database;
        let mut records = Vec::with_capacity(2 * jobs.len());
        for job in jobs {
            let cancel = Cancel {
                job: *job,
                tenant: self.tenant.to_owned(),
                requested_by: SUBJECT.to_owned(),
                reason: Some(REASON.to_owned()),
                at_ms: clock.now_ms(),
                id: ids.uuid().to_string(),
                requires: Vec::new(),
            };
            records.push(writer.cancel(&cancel, trace)?);
            records.push(writer.wait(&Wait::Signal((&cancel).into()), trace)?);
        }
        store::outbox::send(pool, &records).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_keep_is_an_hour_at_least_or_nothing_of_its_own() {
        assert_eq!(keep_s("90d").unwrap(), Some(90 * 86_400));
        assert_eq!(keep_s("default").unwrap(), None);
        for wrong in ["59m", "0", "soon", "-1d"] {
            assert!(keep_s(wrong).unwrap_err().to_string().contains(wrong));
        }
    }
}
