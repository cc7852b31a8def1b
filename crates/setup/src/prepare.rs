//! Tables, slot, topics and schemas.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Context;
use bus::admin::Admin;
use bus::{DEFAULT_QUEUE, Registry};
use store::{Pool, Role};

use crate::patience::patiently;
use crate::{Target, default_queues};

/// Outbox partitions made in advance, in hours.
const OUTBOX_HOURS_AHEAD: u32 = 24;
/// Acceptance partitions made in advance, in days.
const ACCEPTANCE_DAYS_AHEAD: u32 = 3;

/// The outcome of [`prepare`]. Displayed, it is one line per server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    slot: String,
    slot_created: bool,
    topics_created: usize,
    subjects: usize,
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot = if self.slot_created { "created" } else { "was there" };
        writeln!(f, "postgres  tables are up to date, slot {} {slot}", self.slot)?;
        writeln!(f, "kafka     {} topics created", self.topics_created)?;
        write!(f, "registry  {} subjects are up to date", self.subjects)
    }
}

/// Prepares all three servers. Waits two minutes for each that does not answer yet.
///
/// # Errors
/// A server refuses, or does not answer in time.
pub async fn prepare(target: &Target) -> anyhow::Result<Prepared> {
    target.create_tables().await?;
    let (slot, slot_created) = target.create_slot().await?;
    let topics_created = target.create_topics().await?;
    let subjects = target.register_subjects(&default_queues()).await?;
    Ok(Prepared { slot, slot_created, topics_created, subjects })
}

impl Target {
    /// Migrates the schemas, and makes the partitions that the first hours and days need.
    ///
    /// # Errors
    /// Postgres refuses, or does not answer in time.
    pub async fn create_tables(&self) -> anyhow::Result<()> {
        patiently("Postgres", || store::migrate(&self.database_url)).await?;
        let relay = self.pool(Role::Relay)?;
        patiently("Postgres", || store::outbox::ensure_partitions(&relay, OUTBOX_HOURS_AHEAD)).await?;
        relay.close().await;
        let ingest = self.pool(Role::Ingest)?;
        patiently("Postgres", || store::acceptances::ensure_partitions(&ingest, ACCEPTANCE_DAYS_AHEAD)).await?;
        ingest.close().await;
        Ok(())
    }

    /// The slot's name, and whether it is new.
    async fn create_slot(&self) -> anyhow::Result<(String, bool)> {
        let pool = self.pool(Role::Relay)?;
        let slot = store::slot::name(self.topics.prefix());
        let created = store::slot::create(&pool, &slot).await.context("the outbox cannot be streamed")?;
        pool.close().await;
        Ok((slot, created))
    }

    /// Creates the topics that are missing; how many they were.
    ///
    /// # Errors
    /// Kafka refuses, or does not answer in time.
    pub async fn create_topics(&self) -> anyhow::Result<usize> {
        let admin = Admin::new(&self.bus)?;
        let queues = default_queues();
        let created = patiently("Kafka", || admin.create_topics(&self.topics, &queues, None)).await?;
        admin.commit_initial_offsets(&self.workers_group(), &[self.topics.steps(DEFAULT_QUEUE)]).await?;
        Ok(created.len())
    }

    /// Registers the schema of every topic, those of these queues included; how many subjects there are.
    ///
    /// # Errors
    /// The registry refuses, or does not answer in time.
    pub async fn register_subjects(&self, queues: &BTreeSet<String>) -> anyhow::Result<usize> {
        let registry = Registry::new(&self.bus.registry_url, None)?;
        patiently("the schema registry", || registry.reachable()).await?;
        Ok(bus::register_subjects(&registry, &self.topics, queues).await?)
    }

    pub(crate) fn pool(&self, role: Role) -> anyhow::Result<Pool> {
        Ok(Pool::open(&store::Settings::new(&self.database_url), role)?)
    }
}
