//! `meanwhile migrate`: everything that must be there before the roles start. Safe to repeat.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bus::admin::Admin;
use bus::{DEFAULT_QUEUE, Registry, until_available};
use events::schema::subjects;
use service_kit::config::Sources;
use service_kit::telemetry;
use store::{Pool, Role};

use crate::flows::{COMPATIBILITY, apply_all, read_folder};
use crate::roles::Base;

/// How long Postgres, Kafka and the registry may take to come up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between attempts.
const RETRY: Duration = Duration::from_secs(1);
/// Outbox partitions made in advance, in hours.
const OUTBOX_HOURS_AHEAD: u32 = 24;
/// Acceptance partitions made in advance, in days.
const ACCEPTANCE_DAYS_AHEAD: u32 = 3;

/// `meanwhile migrate`
pub(crate) async fn run(sources: &Sources) -> anyhow::Result<ExitCode> {
    let base = Base::load(sources)?;
    telemetry::init(&base.shared.log)?;
    // What does not lint stops here, before anything is touched.
    let definitions = match &base.shared.flows_dir {
        Some(folder) => read_folder(Path::new(folder)).with_context(|| format!("MEANWHILE_FLOWS={folder}"))?,
        None => Vec::new(),
    };
    prepare(&base).await?;
    apply_all(&base, &definitions).await?;
    Ok(ExitCode::SUCCESS)
}

/// Tables, slot, topics and schemas.
#[expect(clippy::print_stdout, reason = "progress of a command")]
pub(crate) async fn prepare(base: &Base) -> anyhow::Result<()> {
    let database_url = base.database_url()?;
    patiently("Postgres", || store::migrate(&database_url)).await?;
    let pool = Pool::open(&store::Settings::new(&database_url), Role::Relay)?;
    patiently("Postgres", || store::outbox::ensure_partitions(&pool, OUTBOX_HOURS_AHEAD)).await?;
    let slot = store::slot::name(base.topics.prefix());
    let created = store::slot::create(&pool, &slot).await.context("the outbox cannot be streamed")?;
    pool.close().await;
    let pool = Pool::open(&store::Settings::new(&database_url), Role::Ingest)?;
    patiently("Postgres", || store::acceptances::ensure_partitions(&pool, ACCEPTANCE_DAYS_AHEAD)).await?;
    pool.close().await;
    println!("postgres  tables are up to date, slot {slot} {}", if created { "created" } else { "was there" });
    let admin = Admin::new(&base.bus)?;
    let queues = BTreeSet::from([DEFAULT_QUEUE.to_owned()]);
    let created = patiently("Kafka", || admin.create_topics(&base.topics, &queues, None)).await?;
    let group = format!("{}-workers", base.topics.prefix());
    admin.commit_initial_offsets(&group, &[base.topics.steps(DEFAULT_QUEUE)]).await?;
    println!("kafka     {} topics created", created.len());
    let registry = Registry::new(&base.bus.registry_url, None)?;
    patiently("the schema registry", || registry.reachable()).await?;
    let subjects = subjects(&base.topics, [DEFAULT_QUEUE]);
    for subject in &subjects {
        until_available(|| registry.register(&subject.name, subject.avsc)).await?;
        until_available(|| registry.set_compatibility(&subject.name, COMPATIBILITY)).await?;
    }
    println!("registry  {} subjects are up to date", subjects.len());
    Ok(())
}

async fn patiently<T, E, F>(what: &str, mut attempt: impl FnMut() -> F) -> anyhow::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
    F: Future<Output = Result<T, E>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if tokio::time::Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("{what} did not answer within {} s", PATIENCE.as_secs()));
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    let error = anyhow::Error::new(error);
                    tracing::warn!(error = format!("{error:#}"), "{what} does not answer yet; trying on");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
