//! Follows the events of jobs and logs the end of each job. Webhooks come later, driven by the same loop.
//!
//! Offsets are stored by rule 3. The line about a job's end is written after the commit: a crash between the two loses
//! the line, and nothing else.
//!
//! Unreadable events are passed over with a metric: the orchestrator keeps them as dead letters.

use std::time::Duration;

use anyhow::Context;
use bus::{FollowerOptions, Reader, RecordBatch, Unreadable};
use events::trace::{Trace, TraceId};
use events::{Inbound, decode_event, header};
use flow::event::{EventKind, JobEvent};
use flow::facts::JobFacts;
use inbox::{Inbox, Service};
use process::{Process, ServiceSettings};
use store::{Pool, Role, Tx};
use tokio_util::sync::CancellationToken;

pub mod config;

/// The service's needs.
pub type Settings = ServiceSettings<config::Config>;

/// Runs until shutdown.
///
/// # Errors
/// Only errors that a retry does not mend: a setting that cannot be used, an offset that is no longer in the log.
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
                Err(Unreadable::Never(_) | Unreadable::Newer(_)) => {
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

/// Judges an event by its header, so that most events need not be decoded.
fn may_end_a_job(record: &Inbound) -> bool {
    let kind = record.header_text(header::CE_TYPE).and_then(EventKind::parse);
    kind.is_none_or(EventKind::ends_job) // one of a later version may
}

fn log_end(Ended { event, trace_id }: &Ended) {
    let JobEvent { facts: JobFacts { job, tenant, flow, .. }, status, .. } = event;
    let took = Duration::from_millis(u64::try_from(event.at_ms - event.accepted_at_ms).unwrap_or(0));
    metrics::counter!("meanwhile_jobs_ended_total", "flow" => flow.clone(), "status" => status.as_str().to_owned())
        .increment(1);
    metrics::histogram!("meanwhile_job_seconds", "flow" => flow.clone(), "status" => status.as_str().to_owned())
        .record(took);
    let trace_id = trace_id.map(|id| id.to_string());
    tracing::info!(job.id = %job, tenant, flow, trace_id, status = status.as_str(), "job ended");
}
