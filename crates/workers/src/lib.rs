//! Runs steps and decides what is next: slips in, slips, holds and events out, in one Kafka transaction.
//!
//! Promise (rule 2): the records that follow from a slip are committed together with its offset, exactly once, by the
//! worker that owned its partition when the slip was taken. A crash repeats a step, never the rest of the job. Slips
//! that share a record key run one at a time, in order. No content of a record can stop a partition.
//!
//! Read `run_step` (slip to records), `board` and `ledger` (slips in flight, by assignment epochs), `commit` (records
//! to Kafka), `session` (begin and end of the parts).
//!
//! Invariant: slips, holds and events leave only through the transactional producer; no module uses Postgres. The only
//! other producers send outcomes of long calls and signs of life (`long_calls`), and progress, which may be lost
//! (`progress`).
//!
//! A team's own worker binary, with native steps:
//!
//! ```no_run
//! use serde_json::{Value, json};
//! use workers::{NativeCall, NativeError, Workers};
//!
//! async fn book_shipment(call: NativeCall) -> Result<Value, NativeError> {
//!     if call.undo {
//!         return Ok(json!({ "cancelled": call.undo_of() }));
//!     }
//!     let address = call.input["address"].as_str().ok_or_else(|| NativeError::permanent("no address"))?;
//!     // The key is the same for every attempt, so that the called service can recognise a repetition.
//!     Ok(json!({ "tracking": call.idempotency_key, "to": address }))
//! }
//!
//! # fn main() -> anyhow::Result<()> {
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! Workers::builder().native("book_shipment", book_shipment).build().serve().await
//! # })
//! # }
//! ```

#![warn(missing_docs)]

mod apart;
mod attempt;
mod attempt_log;
mod board;
mod breakers;
mod cadence;
mod cancels;
mod commit;
pub mod config;
mod desk;
mod downstreams;
mod encode;
mod ended;
mod flows;
mod followed;
mod halted;
mod heed_cancel;
mod held;
mod http;
mod intake;
mod lane_table;
mod lanes;
mod ledger;
mod load;
mod long_calls;
mod mark;
mod meters;
mod missing;
mod native;
mod not_now;
mod pace;
mod payloads;
mod progress;
mod pulse;
mod ready;
mod run_step;
mod serve;
mod session;
mod spans;
mod step_time;
mod task;
mod telemetry;
mod telling;
mod tenure;
mod tokens;
mod topic_limits;
mod trim;
mod unread;
mod window;
mod work;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bus::admin::Admin;
use bus::{Producer, Reader, Registry};
use documents::Documents;
use events::topic::Topics;
use events::{Writer, WriterIds};
use flow::callback::{Callbacks, Secrets};
use flow::decide::Env;
use process::{Base, Process};
use serde_json::Value;
use service_kit::CancellationToken;
use service_kit::config::{ConfigError, DocumentSettings, Sources, load};
use service_kit::retry::{Backoff, until_ok};
use service_kit::tasks::Tasks;
use tokio::sync::watch;

use crate::breakers::Breakers;
pub use crate::cancels::CancelRequest;
use crate::cancels::Cancels;
use crate::downstreams::Downstreams;
use crate::flows::Flows;
use crate::halted::Halted;
use crate::http::Http;
use crate::lane_table::LaneTable;
use crate::long_calls::LongCalls;
use crate::meters::Meters;
use crate::native::Natives;
pub use crate::native::{NativeCall, NativeError};
pub use crate::progress::ProgressReporter;
use crate::progress::ProgressTopic;
use crate::run_step::Runner;
use crate::session::{Ending, Session};
use crate::topic_limits::TopicLimits;

/// Settings and names that the service needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Kafka and the registry.
    pub bus: bus::Settings,
    /// The names of topics.
    pub topics: Topics,
    /// This process's name among the workers: the same after a restart, and unique.
    pub instance: String,
    /// Values that expressions see as `env.*` and `secrets.*`; see [`Env::of_process`].
    pub env: Env,
    /// The store of documents.
    pub documents: DocumentSettings,
    /// The service's own settings.
    pub config: config::Config,
}

impl Settings {
    /// # Errors
    /// The first setting that is missing or cannot be used.
    pub fn load(base: &Base, sources: &Sources) -> Result<Self, ConfigError> {
        Ok(Self {
            bus: base.bus.clone(),
            topics: base.topics.clone(),
            instance: base.shared.instance.clone(),
            env: Env { callbacks: callbacks(base)?, ..Env::of_process(sources.variables()) },
            documents: base.shared.documents.clone(),
            config: load(config::SECTION, config::DEFAULT, sources)?,
        })
    }
}

/// The means to make the URLs of callbacks, as far as the settings give them.
fn callbacks(base: &Base) -> Result<Callbacks, ConfigError> {
    let settings = &base.shared.callbacks;
    let secrets = Secrets::new(settings.secrets.clone()).map_err(|error| settings.refused(&error))?;
    Ok(Callbacks { api_url: settings.api_url(&base.shared.public_url).to_owned(), secrets })
}

/// The workers of one process, with their native steps.
#[derive(Debug, Clone, Default)]
pub struct Workers {
    natives: Natives,
}

/// Collects native steps.
#[derive(Debug, Default)]
pub struct WorkersBuilder {
    natives: Natives,
}

impl WorkersBuilder {
    /// Registers the function that steps with `native: <name>` call, forward and undo.
    ///
    /// # Panics
    /// The name is taken.
    #[must_use]
    pub fn native<F, A>(mut self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(NativeCall) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Value, NativeError>> + Send + 'static,
    {
        self.natives.register(name.into(), function);
        self
    }

    /// Has a call of this native step end where the function shows no sign of life for so long: neither a report of its
    /// progress nor [`ProgressReporter::alive`]. It counts as timed out then: its outcome is unknown, and it is tried
    /// again as the step's policy says. So a function that hangs is noticed long before a `timeout` of minutes.
    ///
    /// A function that blocks its thread cannot be ended: only where it waits (`await`) it is dropped.
    ///
    /// # Panics
    /// No native step has this name.
    #[must_use]
    pub fn heartbeat(mut self, name: &str, longest_silence: Duration) -> Self {
        self.natives.expect_heartbeat(name, longest_silence);
        self
    }

    /// Ends the collection.
    pub fn build(self) -> Workers {
        Workers { natives: self.natives }
    }
}

impl Workers {
    /// A builder without native steps.
    pub fn builder() -> WorkersBuilder {
        WorkersBuilder::default()
    }

    /// Runs until shutdown. Waits for dependencies that are unreachable; readiness names them.
    ///
    /// # Errors
    /// Only for settings that cannot be used.
    pub async fn run(self, settings: Settings, process: Process, shutdown: CancellationToken) -> anyhow::Result<()> {
        process.readiness.expect(&["kafka", "registry"]);
        let documents = Documents::open(&settings.documents, process.readiness.clone())?;
        let (flows, follow, loaded) = Flows::new(settings.env.clone());
        let mut tasks = Tasks::new(shutdown.clone());
        let (bus, topic) = (settings.bus.clone(), settings.topics.flows());
        let learner = Arc::clone(&flows);
        tasks
            .spawn("following flows", followed::follow(follow, learner, bus, topic, process.clone(), shutdown.clone()));
        if let Some(documents) = documents.clone() {
            tasks.spawn("documents", documents.watch(shutdown.clone()));
        }
        tasks.spawn("sessions", self.sessions((settings, documents), flows, loaded, process, shutdown));
        tasks.join().await
    }

    async fn sessions(
        self,
        (settings, documents): (Settings, Option<Documents>),
        flows: Arc<Flows>,
        mut loaded: watch::Receiver<bool>,
        process: Process,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let registry = Registry::of(&settings.bus).context("SCHEMA_REGISTRY_URL cannot be used")?;
        let reader = Reader::new(registry);
        let Process { readiness, ids, .. } = &process;
        let writers = until_ok("registry", readiness, ids, &shutdown, || reader.writer_ids(&settings.topics)).await;
        let Some(writers) = writers else { return Ok(()) };
        // The queues are known once the flows are.
        let known = async { loaded.wait_for(|loaded| *loaded).await.is_ok() };
        if shutdown.run_until_cancelled(known).await.is_none() {
            return Ok(());
        }
        let queues = queues(&settings.config.queues, &flows);
        let (writer, limits) = (Writer { topics: settings.topics.clone(), ids: writers }, settings.config.long_calls());
        let producer = Producer::new(&settings.bus).context("KAFKA_BROKERS cannot be used")?;
        let long_calls = LongCalls::new(producer, writer, &settings.instance, limits, &process);
        let (lanes, follow_lanes) = LaneTable::new(Arc::clone(&long_calls));
        let (cancels, follow_cancels, mut cancels_known) = Cancels::new(reader.clone());
        let (breakers, follow_breakers, mut breakers_known) = Breakers::new(settings.config.breakers);
        let http = Http::new(&settings.config.http, documents)?;
        let runner = self.runner((&settings, http), reader, writers, flows, (&lanes, &cancels, &breakers), &process)?;
        let Settings { bus, topics, instance, config, .. } = settings;
        let (over, calls_over) = (CancellationToken::new(), CancellationToken::new());
        let drain = config.drain_timeout();
        let following = followed::follow(
            follow_lanes,
            lanes,
            bus.clone(),
            topics.lanes(),
            process.clone(),
            // To the end of the last call: a worker that stops may still learn that it was lost.
            calls_over.clone(),
        );
        // The same: an attempt that is retried heeds a cancel.
        let (topic, until) = (topics.cancels(), calls_over.clone());
        let following_cancels = followed::follow(follow_cancels, cancels, bus.clone(), topic, process.clone(), until);
        let (topic, until) = (topics.breakers(), calls_over.clone());
        let following_breakers =
            followed::follow(follow_breakers, breakers, bus.clone(), topic, process.clone(), until);
        let session = Session { bus, instance, config, runner: Arc::new(runner), queues };
        let sessions = async {
            let known = async {
                cancels_known.wait_for(|known| *known).await.is_ok()
                    && breakers_known.wait_for(|known| *known).await.is_ok()
            };
            if shutdown.run_until_cancelled(known).await.is_some() {
                keep_going(&session, &process, &shutdown).await;
            }
            over.cancel();
        };
        let calls = async {
            let calls = long_calls.run(shutdown.clone(), over.clone(), drain).await;
            calls_over.cancel();
            calls
        };
        let (following, cancels, breakers, (), calls) =
            tokio::join!(following, following_cancels, following_breakers, sessions, calls);
        following.and(cancels).and(breakers).and(calls)
    }

    fn runner(
        self,
        (settings, http): (&Settings, Http),
        reader: Reader,
        writers: WriterIds,
        flows: Arc<Flows>,
        (lanes, cancels, breakers): (&Arc<LaneTable>, &Arc<Cancels>, &Arc<Breakers>),
        process: &Process,
    ) -> anyhow::Result<Runner> {
        let Process { readiness, clock, ids } = process.clone();
        let admin = Admin::new(&settings.bus).context("KAFKA_BROKERS cannot be used")?;
        Ok(Runner {
            writer: Writer { topics: settings.topics.clone(), ids: writers },
            reader,
            flows,
            http,
            natives: self.natives,
            env: settings.env.clone(),
            halted: Halted::new(admin.clone(), readiness.clone()),
            limits: TopicLimits::new(admin, readiness.clone(), ids.clone()),
            registry_missed: Arc::default(),
            long_calls: Arc::clone(&lanes.long_calls),
            lanes: Arc::clone(lanes),
            cancels: Arc::clone(cancels),
            breakers: Arc::clone(breakers),
            downstreams: Downstreams::new(settings.config.retries),
            progress: ProgressTopic::new(&settings.bus, settings.config.progress_after())
                .context("KAFKA_BROKERS cannot be used")?,
            leave_after: Duration::from_millis(settings.config.detach_after_ms),
            readiness,
            meters: Meters::default(),
            clock,
            ids,
        })
    }
}

/// The queues to work on: the configured ones, or else those of all flows, as flows are added.
fn queues(configured: &[String], flows: &Flows) -> watch::Receiver<BTreeSet<String>> {
    if configured.is_empty() {
        return flows.queues();
    }
    watch::Sender::new(configured.iter().cloned().collect()).subscribe()
}

/// The age from which a session counts as healthy: its end is unrelated to the end of the session before it.
const LASTING: Duration = Duration::from_secs(60);

/// One session after the other until shutdown.
async fn keep_going(session: &Session, process: &Process, shutdown: &CancellationToken) {
    let Process { readiness, ids, .. } = process;
    let mut backoff = Backoff::default();
    let mut fenced_before = false;
    loop {
        let started = Instant::now();
        let Err(ending) = session.clone().run(shutdown).await else { return };
        if started.elapsed() > LASTING {
            backoff.reset();
            fenced_before = false;
        }
        match ending {
            // A worker that was paused for long is fenced once. Fenced twice in a row: another process has our name.
            Ending::Fenced if fenced_before => {
                let instance = &session.instance;
                let why =
                    format!("another process runs as instance `{instance}`; give each its own MEANWHILE_INSTANCE");
                readiness.missing("instance", why);
            }
            Ending::Fenced => {
                fenced_before = true;
                tracing::warn!(instance = session.instance, "another producer took over; starting again");
            }
            Ending::Repaired(place) => {
                tracing::info!(%place, "the offset was repaired; starting again to read the partition");
                continue;
            }
            Ending::Failed(error) => readiness.missing("kafka", format!("{error:#}")),
        }
        if !backoff.sleep(ids, shutdown).await {
            return;
        }
    }
}
