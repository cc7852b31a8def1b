//! Tables, slot, topics and schemas.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Context;
use bus::Registry;
use bus::admin::Admin;
use store::reader::{self, Way};
use store::slot::{self, SlotError};
use store::{Pool, Role};

use crate::patience::{patiently, until_kafka_answers, while_kafka_is_away};
use crate::{Target, default_queues};

/// Outbox partitions made in advance, in hours.
const OUTBOX_HOURS_AHEAD: u32 = 24;
/// Acceptance partitions made in advance, in days.
const ACCEPTANCE_DAYS_AHEAD: u32 = 3;

/// The outcome of [`prepare`]. Displayed, it is one line per server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    outbox: Outbox,
    topics_created: usize,
    subjects: usize,
    strange_schema_ids: Vec<String>,
}

/// How relays read the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outbox {
    Logical { slot: String, slot_created: bool, published: bool, reason: String },
    Polling { reason: String },
}

impl fmt::Display for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Logical { slot, slot_created, published, reason } => {
                let created = if *slot_created { "created" } else { "was there" };
                let published = if *published { ", publication created" } else { "" };
                writeln!(f, "postgres  tables are up to date, slot {slot} {created}{published}")?;
                write!(f, "outbox    relays read the log: {reason}")
            }
            Self::Polling { reason } => {
                writeln!(f, "postgres  tables are up to date")?;
                write!(f, "outbox    relays poll the table: {reason}")
            }
        }
    }
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.outbox)?;
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

/// Prepares all three servers. Waits two minutes for each that does not answer yet. Relays will read the outbox in the
/// wanted way; none: as they do, or at the first time as this Postgres allows.
///
/// # Errors
/// A server refuses, or does not answer in time.
pub async fn prepare(target: &Target, wanted: Option<Way>) -> anyhow::Result<Prepared> {
    target.create_tables().await?;
    let outbox = target.prepare_outbox(wanted).await?;
    let topics_created = target.create_topics().await?;
    let subjects = target.register_subjects(&default_queues()).await?;
    let strange_schema_ids = target.strange_schema_ids(&default_queues()).await?;
    Ok(Prepared { outbox, topics_created, subjects, strange_schema_ids })
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

    /// Chooses how relays read the outbox, and makes what they need for it.
    async fn prepare_outbox(&self, wanted: Option<Way>) -> anyhow::Result<Outbox> {
        let pool = self.pool(Role::Relay)?;
        // The migration made it; somebody may have dropped it since.
        let published = slot::publish(&pool).await.context("the outbox cannot be published")?;
        let (way, reason) = match (wanted, reader::chosen(&pool).await?) {
            (Some(way), _) => (way, format!("--outbox-reader {way}")),
            (None, Some(way)) => (way, "as was chosen before (--outbox-reader changes it)".to_owned()),
            (None, None) => match slot::check_server(&pool).await {
                Ok(_) => (Way::Logical, "this Postgres allows logical decoding".to_owned()),
                Err(error @ (SlotError::WalLevel { .. } | SlotError::MayNotReplicate { .. })) => {
                    (Way::Polling, format!("{}. Later, --outbox-reader logical changes it", error.cause()))
                }
                Err(error) => return Err(error).context("the outbox cannot be streamed"),
            },
        };
        let outbox = match way {
            Way::Logical => {
                let slot = slot::name(self.topics.prefix());
                let slot_created = slot::create(&pool, &slot).await.context("the outbox cannot be streamed")?;
                Outbox::Logical { slot, slot_created, published, reason }
            }
            Way::Polling => Outbox::Polling { reason },
        };
        // Last: relays follow at once.
        reader::choose(&pool, way).await?;
        pool.close().await;
        Ok(outbox)
    }

    /// Commits an offset for the workers at the log's start in every queue's topic where they have none, also where
    /// they had one that Kafka has forgotten. Returns the count of partitions.
    ///
    /// # Errors
    /// Kafka refuses, or does not answer in time.
    pub async fn begin_at_log_start(&self) -> anyhow::Result<usize> {
        let admin = Admin::new(&self.bus)?;
        let topics = until_kafka_answers(|| admin.queue_topics(&self.topics)).await?;
        let group = self.topics.workers_group();
        while_kafka_is_away(|| admin.begin_at_log_start(&group, &topics)).await
    }

    /// Creates the topics that are missing, and commits the workers' initial offsets in the topic of every queue.
    /// Returns the count of topics created.
    ///
    /// # Errors
    /// Kafka refuses, or does not answer in time.
    pub async fn create_topics(&self) -> anyhow::Result<usize> {
        let admin = Admin::new(&self.bus)?;
        let queues = default_queues();
        let created = until_kafka_answers(|| admin.create_topics(&self.topics, &queues, None)).await?;
        let topics = until_kafka_answers(|| admin.queue_topics(&self.topics)).await?;
        let group = self.topics.workers_group();
        // The first commit of all makes the topic that Kafka keeps offsets in.
        while_kafka_is_away(|| admin.commit_offsets_where_new(&group, &topics, &created)).await?;
        Ok(created.len())
    }

    /// Creates the commands topics of tenants that have their own. Returns the count of those created.
    ///
    /// # Errors
    /// Kafka refuses, or does not answer in time.
    pub async fn create_commands(&self, tenants: &[String]) -> anyhow::Result<usize> {
        let admin = Admin::new(&self.bus)?;
        let created = patiently("Kafka", || admin.create_commands(&self.topics, tenants)).await?;
        Ok(created.len())
    }

    /// Registers the schema of every topic, including the topics of these queues. Returns the count of subjects.
    ///
    /// # Errors
    /// The registry refuses, or does not answer in time.
    pub async fn register_subjects(&self, queues: &BTreeSet<String>) -> anyhow::Result<usize> {
        let registry = Registry::of(&self.bus)?;
        patiently("the schema registry", || registry.reachable()).await?;
        Ok(bus::register_subjects(&registry, &self.topics, queues).await?)
    }

    pub(crate) fn pool(&self, role: Role) -> anyhow::Result<Pool> {
        Ok(Pool::open(&store::Settings::new(&self.database_url), role)?)
    }
}
