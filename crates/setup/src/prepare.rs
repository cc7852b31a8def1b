//! Tables, slot, topics and schemas.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Context;
use bus::Registry;
use bus::admin::Admin;
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
    published: bool,
    topics_created: usize,
    subjects: usize,
    strange_schema_ids: Vec<String>,
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot = if self.slot_created { "created" } else { "was there" };
        let published = if self.published { ", publication created" } else { "" };
        writeln!(f, "postgres  tables are up to date, slot {} {slot}{published}", self.slot)?;
        writeln!(f, "kafka     {} topics created", self.topics_created)?;
        write!(f, "registry  {} subjects are up to date", self.subjects)?;
        if !self.strange_schema_ids.is_empty() {
            let ids = self.strange_schema_ids.join(", ");
            writeln!(
                f,
                "\nregistry  WARNING: these ids of records on Kafka are unknown, or other schemas' now: {ids}"
            )?;
            write!(f, "          restore its content: docs/runbooks/dependency-unreachable.md")?;
        }
        Ok(())
    }
}

/// Prepares all three servers. Waits two minutes for each that does not answer yet.
///
/// # Errors
/// A server refuses, or does not answer in time.
pub async fn prepare(target: &Target) -> anyhow::Result<Prepared> {
    target.create_tables().await?;
    // The migration made it; somebody may have dropped it since.
    let published = target.publish().await?;
    let (slot, slot_created) = target.create_slot().await?;
    let topics_created = target.create_topics().await?;
    let subjects = target.register_subjects(&default_queues()).await?;
    let strange_schema_ids = target.strange_schema_ids(&default_queues()).await?;
    Ok(Prepared { slot, slot_created, published, topics_created, subjects, strange_schema_ids })
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

    /// Creates the publication unless it exists. Returns whether it is new.
    async fn publish(&self) -> anyhow::Result<bool> {
        let pool = self.pool(Role::Relay)?;
        let published = store::slot::publish(&pool).await.context("the outbox cannot be published")?;
        pool.close().await;
        Ok(published)
    }

    /// Creates the slot unless it exists. Returns its name, and whether it is new.
    async fn create_slot(&self) -> anyhow::Result<(String, bool)> {
        let pool = self.pool(Role::Relay)?;
        let slot = store::slot::name(self.topics.prefix());
        let created = store::slot::create(&pool, &slot).await.context("the outbox cannot be streamed")?;
        pool.close().await;
        Ok((slot, created))
    }

    /// Commits an offset for the workers at the log's start in every queue's topic where they have none, also where
    /// they had one that Kafka has forgotten. Returns the count of partitions.
    ///
    /// # Errors
    /// Kafka refuses, or does not answer in time.
    pub async fn begin_at_log_start(&self) -> anyhow::Result<usize> {
        let admin = Admin::new(&self.bus)?;
        let topics = patiently("Kafka", || admin.queue_topics(&self.topics)).await?;
        Ok(admin.begin_at_log_start(&self.workers_group(), &topics).await?)
    }

    /// Creates the topics that are missing, and commits the workers' initial offsets in the topic of every queue.
    /// Returns the count of topics created.
    ///
    /// # Errors
    /// Kafka refuses, or does not answer in time.
    pub async fn create_topics(&self) -> anyhow::Result<usize> {
        let admin = Admin::new(&self.bus)?;
        let queues = default_queues();
        let created = patiently("Kafka", || admin.create_topics(&self.topics, &queues, None)).await?;
        let topics = patiently("Kafka", || admin.queue_topics(&self.topics)).await?;
        admin.commit_initial_offsets(&self.workers_group(), &topics).await?;
        Ok(created.len())
    }

    /// Registers the schema of every topic, including the topics of these queues. Returns the count of subjects.
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
