//! Moves outbox rows into Kafka in commit order, exactly once: rule 1 of docs/rules.md.
//!
//! The log is streamed through a replication slot (`pgoutput`, `row`, `cursor`), or where Postgres does not allow that
//! the table is polled (`table`). Rows go out in Kafka transactions that
//! also carry the relay's own position; `fit` judges it. Of several relays one delivers; the others stand by and take
//! over within seconds. Whatever goes wrong, the `session` ends, and another begins from the position in Kafka.
//!
//! Invariant: nothing is acknowledged to Postgres before Kafka has committed it together with the position.
//! Invariant: a relay whose position does not fit the server delivers nothing; it names the remedy and stays up.

mod batch;
pub mod config;
mod cursor;
mod database;
mod drain;
mod ended;
mod fit;
pub mod maintain;
mod manifest;
mod pgoutput;
mod position;
mod read;
pub mod recover;
mod refuse;
mod rest;
mod row;
pub mod seam;
mod session;
mod stored;
mod stream;
mod table;
mod telemetry;

use anyhow::Context;
use bus::Registry;
use bus::admin::Admin;
use events::position::Position;
use events::topic::Topics;
use parking_lot::Mutex;
use process::{Base, Process};
use service_kit::config::{ConfigError, Sources, load};
use service_kit::retry::Backoff;
use service_kit::{CancellationToken, Clock, Ids, Readiness};
use store::reader::Way;
use store::{Pool, Role};
use tokio::sync::{Notify, watch};

use crate::config::Config;
use crate::database::Database;
use crate::ended::SessionError;
use crate::rest::Rests;
use crate::seam::Seams;

/// Looking after the outbox takes one connection, a recovery two, hearing of new rows one.
const CONNECTIONS_MAX: u32 = 4;

/// The service's needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[relay]`.
    pub config: Config,
    /// `DATABASE_URL`; its login needs REPLICATION.
    pub database_url: String,
    /// Kafka.
    pub bus: bus::Settings,
    /// The topics' names; the slot and the transactional id follow from their prefix.
    pub topics: Topics,
    /// For tests.
    pub seams: Seams,
}

impl Settings {
    /// # Errors
    /// The first setting that is missing or cannot be used.
    pub fn load(base: &Base, sources: &Sources) -> Result<Self, ConfigError> {
        Ok(Self {
            bus: base.bus.clone(),
            topics: base.topics.clone(),
            database_url: base.database_url()?,
            seams: Seams::default(),
            config: load(config::SECTION, config::DEFAULT, sources)?,
        })
    }
}

/// One relay.
#[derive(Debug)]
pub struct Relay {
    settings: Settings,
    database: Database,
    slot: String,
    pool: Pool,
    admin: Admin,
    rests: Rests,
    readiness: Readiness,
    clock: Clock,
    /// The last position that a session of this process has committed to Kafka, or has found there.
    delivered: watch::Sender<Option<Position>>,
    /// The publication that the session streams by.
    publication: Mutex<Option<u32>>,
    /// The way of reading of the session that delivers.
    delivers_by: Mutex<Option<Way>>,
    /// Told when there is another publication, or none, or another way of reading was chosen.
    changed: Notify,
}

impl Relay {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// Settings that can never work: a bad URL, a bad Kafka property.
    pub fn new(settings: Settings, readiness: Readiness, clock: Clock) -> anyhow::Result<Self> {
        let database = settings.database_url.parse()?;
        let pool = store::Settings { connections_max: CONNECTIONS_MAX, ..store::Settings::new(&settings.database_url) };
        let pool = Pool::open(&pool, Role::Relay).context("opening the pool")?;
        let admin = Admin::new(&settings.bus).context("the Kafka client")?;
        let registry = Registry::of(&settings.bus).context("SCHEMA_REGISTRY_URL cannot be used")?;
        let rests = Rests::new(registry, settings.topics.clone());
        let slot = store::slot::name(settings.topics.prefix());
        let (delivered, publication, changed) = (watch::Sender::new(None), Mutex::default(), Notify::new());
        let delivers_by = Mutex::default();
        Ok(Self {
            settings,
            database,
            slot,
            pool,
            admin,
            rests,
            readiness,
            clock,
            delivered,
            publication,
            delivers_by,
            changed,
        })
    }

    /// The last position that this relay has delivered, as it moves; none before the first delivery. A relay that polls
    /// knows that of its predecessor from the start.
    pub fn delivered(&self) -> watch::Receiver<Option<Position>> {
        self.delivered.subscribe()
    }

    /// Delivers until shutdown, through one session after the other.
    pub async fn run(&self, ids: &Ids, shutdown: CancellationToken) {
        telemetry::describe();
        self.readiness.expect(&["kafka", "postgres", "slot"]);
        tokio::join!(self.deliver_always(ids, &shutdown), self.maintain(&shutdown));
    }

    async fn deliver_always(&self, ids: &Ids, shutdown: &CancellationToken) {
        let mut backoff = Backoff::default();
        let mut delivered = self.delivered.subscribe();
        loop {
            match self.session(shutdown).await {
                SessionError::Shutdown => return,
                SessionError::Postgres(cause) => self.readiness.missing("postgres", format!("{cause:#}")),
                SessionError::Slot(cause) => self.readiness.missing("slot", format!("{cause:#}")),
                SessionError::Kafka(cause) => self.readiness.missing("kafka", format!("{cause:#}")),
                ended @ SessionError::LeftOut(_) => self.readiness.missing("slot", ended.to_string()),
                SessionError::Position(cause) => self.readiness.missing("position", format!("{cause:#}")),
                ended @ (SessionError::Disturbed | SessionError::Recovered) => {
                    tracing::info!(reason = %ended, "the session ended")
                }
                ended @ (SessionError::Superseded | SessionError::Stopped) => {
                    tracing::warn!(reason = %ended, "the session ended; standing by for the slot");
                }
            }
            if delivered.has_changed().unwrap_or(false) {
                delivered.mark_unchanged();
                backoff.reset();
            }
            if !backoff.sleep(ids, shutdown).await {
                return;
            }
        }
    }
}

/// Runs the role until shutdown: keeps trying while Kafka or Postgres are away; `readiness` says what is missing.
///
/// # Errors
/// Settings that can never work.
pub async fn run(settings: Settings, process: Process, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Process { readiness, clock, ids } = process;
    Relay::new(settings, readiness, clock)?.run(&ids, shutdown).await;
    Ok(())
}
