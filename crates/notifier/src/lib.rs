//! Follows the events of jobs and logs how each ended. Webhooks come later; the way they will be driven stands.
//!
//! Promise: every final event is handled, and its offset is stored, in one transaction (rule 3).
//!
//! Unreadable events are passed over with a metric: the orchestrator keeps them as dead letters.

use std::time::Duration;

use anyhow::Context;
use bus::{Apply, ApplyError, Batch, Follower, FollowerOptions, Reader, Registry, Unreadable, drive};
use events::topic::Topics;
use events::trace::Trace;
use events::{Inbound, decode_event, header};
use flow::event::{EventKind, JobEvent};
use service_kit::health::Readiness;
use service_kit::identity::Ids;
use service_kit::retry::until_ok;
use store::offsets::{advance, positions};
use store::{Pool, Role};
use tokio_util::sync::CancellationToken;

pub mod config;

/// Nobody waits for what is followed here: it is fetched when there is much of it, or after this time. A fetch per
/// transaction of every producer would cost the broker more than the records do.
const FETCH_MIN_BYTES: u32 = 256 * 1024;
const FETCH_WAIT_MAX: Duration = Duration::from_millis(50);
/// How long leaving the group may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the service needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Kafka and the registry.
    pub bus: bus::Settings,
    /// The names of topics.
    pub topics: Topics,
    /// Postgres.
    pub database_url: String,
    /// The service's own settings.
    pub config: config::Config,
}

/// Runs until shutdown.
///
/// # Errors
/// Only what trying again does not mend: a setting that cannot be used, an offset that is no longer in the log.
pub async fn run(settings: Settings, readiness: Readiness, shutdown: CancellationToken) -> anyhow::Result<()> {
    readiness.expect(&["postgres", "kafka", "registry"]);
    let mut store_settings = store::Settings::new(&settings.database_url);
    store_settings.connections_max = settings.config.connections_max;
    let pool = Pool::open(&store_settings, Role::Notifier).context("DATABASE_URL cannot be used")?;
    let registry = Registry::new(&settings.bus.registry_url, None).context("SCHEMA_REGISTRY_URL cannot be used")?;
    let reader = Reader::new(registry);
    let (topics, ids) = (&settings.topics, Ids::system());
    let writers = until_ok("registry", &readiness, &ids, &shutdown, || reader.writer_ids(topics)).await;
    if writers.is_none() {
        return Ok(());
    }
    let mut options = FollowerOptions::new(format!("{}-notifier", topics.prefix()), [topics.events()]);
    options.batch_records_max = settings.config.batch_records_max;
    (options.fetch_min_bytes, options.fetch_wait_max) = (FETCH_MIN_BYTES, FETCH_WAIT_MAX);
    let (positions_pool, told) = (pool.clone(), readiness.clone());
    let mut follower = Follower::start(&settings.bus, options, move |places| {
        let (pool, told) = (positions_pool.clone(), told.clone());
        async move { Ok(told.report("postgres", positions(&pool, &places).await)?) }
    })?;
    let outcome = drive(&mut follower, &mut Notifier { pool, reader, readiness }, &shutdown).await;
    follower.stop(LEAVE_TIMEOUT).await;
    outcome.context("following events")
}

struct Notifier {
    pool: Pool,
    reader: Reader,
    readiness: Readiness,
}

impl Notifier {
    async fn commit(&self, batch: &Batch) -> Result<(), ApplyError> {
        let moved = async {
            let mut tx = self.pool.begin().await?;
            advance(&mut tx, &batch.advances()).await?;
            tx.commit().await
        };
        moved.await.map_err(|error| ApplyError::of(error, store::Error::is_conflict, store::Error::is_row_error))
    }
}

impl Apply for Notifier {
    async fn apply(&mut self, batch: &Batch) -> Result<(), ApplyError> {
        let mut ended = Vec::new();
        let records = batch.parts.iter().flat_map(|part| &part.records);
        for record in records.filter(|record| may_end_a_job(record)) {
            match self.reader.read(record.value.as_deref(), decode_event).await {
                Ok(event) if event.status.is_final() => {
                    ended.push((event, Trace::from_headers(&record.headers).map(|trace| trace.context.trace_id)));
                }
                Ok(_) => {}
                Err(Unreadable::Never(_)) => {
                    metrics::counter!("meanwhile_unreadable_skipped_total", "role" => "notifier").increment(1);
                }
                Err(Unreadable::NotNow(error)) => {
                    self.readiness.missing("registry", &error);
                    return Err(ApplyError::NotNow(error.into()));
                }
            }
        }
        self.readiness.ready("registry");
        self.commit(batch).await?;
        ended.iter().for_each(|(event, trace_id)| log_end(event, *trace_id));
        Ok(())
    }

    async fn bury(&mut self, batch: &Batch, _reason: &str) -> Result<(), ApplyError> {
        self.commit(batch).await
    }

    fn heard(&mut self, outcome: Result<(), &anyhow::Error>) {
        match outcome {
            Ok(()) => self.readiness.ready("postgres"),
            Err(error) if error.is::<bus::RegistryError>() => {}
            Err(error) => self.readiness.missing("postgres", format!("{error:#}")),
        }
    }

    fn heard_of_kafka(&mut self, is_down: bool) {
        self.readiness.heard("kafka", is_down);
    }
}

/// By its header, so that most events need not be decoded.
fn may_end_a_job(record: &Inbound) -> bool {
    let kind = record.header_text(header::CE_TYPE).and_then(EventKind::parse);
    kind.is_none_or(EventKind::ends_job)
}

fn log_end(event: &JobEvent, trace_id: Option<u128>) {
    let JobEvent { job, tenant, flow, status, .. } = event;
    let took = Duration::from_millis(u64::try_from(event.at_ms - event.accepted_at_ms).unwrap_or(0));
    metrics::counter!("meanwhile_jobs_ended_total", "flow" => flow.clone(), "status" => status.as_str()).increment(1);
    metrics::histogram!("meanwhile_job_seconds", "flow" => flow.clone(), "status" => status.as_str()).record(took);
    let trace_id = trace_id.map(|id| format!("{id:032x}"));
    tracing::info!(job.id = %job, tenant, flow, trace_id, status = status.as_str(), "job ended");
}
