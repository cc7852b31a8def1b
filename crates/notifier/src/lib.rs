//! Follows the events of jobs and logs how each ended. Webhooks come later; the way they will be driven stands.
//!
//! Promise: every final event is handled, and its offset is stored, in one transaction (rule 3).
//!
//! Unreadable events are passed over with a metric: the orchestrator keeps them as dead letters.

use std::time::Duration;

use anyhow::Context;
use bus::{FollowerOptions, Reader, RecordBatch, Unreadable};
use events::topic::Topics;
use events::trace::{Trace, TraceId};
use events::{Inbound, decode_event, header};
use flow::event::{EventKind, JobEvent};
use inbox::{Inbox, Service};
use process::{Base, Process};
use service_kit::config::{ConfigError, Sources, load};
use store::{Pool, Role, Tx};
use tokio_util::sync::CancellationToken;

pub mod config;

/// The service's needs.
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

impl Settings {
    /// # Errors
    /// The first setting that is missing or cannot be used.
    pub fn load(base: &Base, sources: &Sources) -> Result<Self, ConfigError> {
        Ok(Self {
            bus: base.bus.clone(),
            topics: base.topics.clone(),
            database_url: base.database_url()?,
            config: load(config::SECTION, config::DEFAULT, sources)?,
        })
    }
}

/// Runs until shutdown.
///
/// # Errors
/// Only what trying again does not mend: a setting that cannot be used, an offset that is no longer in the log.
pub async fn run(settings: Settings, process: Process, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Process { readiness, ids, .. } = process;
    readiness.expect(&["postgres", "kafka", "registry"]);
    let mut store_settings = store::Settings::new(&settings.database_url);
    store_settings.connections_max = settings.config.connections_max;
    let pool = Pool::open(&store_settings, Role::Notifier).context("DATABASE_URL cannot be used")?;
    let inbox = Inbox::new(settings.bus, pool, readiness);
    let topics = settings.topics;
    let Some((reader, _)) = inbox.reader(&topics, &ids, &shutdown).await? else { return Ok(()) };
    let options = FollowerOptions::new(format!("{}-notifier", topics.prefix()), [topics.events()]);
    let mut options = options.in_large_batches();
    options.batch_records_max = settings.config.batch_records_max;
    inbox.run(options, Notifier { reader }, &shutdown).await.context("following events")
}

struct Notifier {
    reader: Reader,
}

/// A job has ended.
struct Ended {
    event: JobEvent,
    trace_id: Option<TraceId>,
}

impl Service for Notifier {
    type Effects = Vec<Ended>;

    async fn read(&mut self, batch: &RecordBatch) -> Result<Vec<Ended>, inbox::Error> {
        let mut ended = Vec::new();
        let records = batch.parts.iter().flat_map(|part| &part.records);
        for record in records.filter(|record| may_end_a_job(record)) {
            match self.reader.read(record.value.as_deref(), decode_event).await {
                Ok(event) if event.status.is_final() => {
                    let trace_id = Trace::from_headers(&record.headers).map(|trace| trace.context.trace_id);
                    ended.push(Ended { event, trace_id });
                }
                Ok(_) => {}
                Err(Unreadable::Never(_)) => {
                    metrics::counter!("meanwhile_unreadable_skipped_total", "role" => "notifier").increment(1);
                }
                Err(Unreadable::NotNow(error)) => return Err(error.into()),
            }
        }
        Ok(ended)
    }

    fn refuse(&mut self, _record: &Inbound, _reason: &str) -> Vec<Ended> {
        Vec::new()
    }

    async fn write(&mut self, _tx: &mut Tx, _ended: &mut Vec<Ended>) -> Result<(), inbox::Error> {
        Ok(())
    }

    fn committed(&mut self, ended: Vec<Ended>) {
        ended.iter().for_each(log_end);
    }
}

/// By its header, so that most events need not be decoded.
fn may_end_a_job(record: &Inbound) -> bool {
    let kind = record.header_text(header::CE_TYPE).and_then(EventKind::parse);
    kind.is_none_or(EventKind::ends_job)
}

fn log_end(Ended { event, trace_id }: &Ended) {
    let JobEvent { job, tenant, flow, status, .. } = event;
    let took = Duration::from_millis(u64::try_from(event.at_ms - event.accepted_at_ms).unwrap_or(0));
    metrics::counter!("meanwhile_jobs_ended_total", "flow" => flow.clone(), "status" => status.as_str()).increment(1);
    metrics::histogram!("meanwhile_job_seconds", "flow" => flow.clone(), "status" => status.as_str()).record(took);
    let trace_id = trace_id.map(|id| id.to_string());
    tracing::info!(job.id = %job, tenant, flow, trace_id, status = status.as_str(), "job ended");
}
