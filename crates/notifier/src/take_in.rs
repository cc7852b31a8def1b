//! Events to deliveries, by rule 3: the deliveries of a batch and its offsets are one transaction.
//!
//! The line about a job's end is written after the commit: a crash between the two loses the line, and nothing else.
//! Unreadable events are passed over with a metric: the orchestrator keeps them as dead letters.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bus::{Reader, RecordBatch, Unreadable};
use events::trace::{Trace, TraceContext};
use events::{Inbound, decode_event, header};
use flow::event::{EventKind, JobEvent};
use flow::facts::JobFacts;
use inbox::Service;
use service_kit::identity::{Clock, Ids};
use store::webhooks::{self, JobSubscription, NewDelivery, Subscription};
use store::{Pool, Tx};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::payload;

pub(crate) struct TakeIn {
    pub(crate) reader: Reader,
    pub(crate) pool: Pool,
    /// Wakes the deliveries.
    pub(crate) wake: Arc<Notify>,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    /// Where callers reach the API; may be empty.
    pub(crate) api_url: String,
}

/// What a batch comes to.
#[derive(Default)]
pub(crate) struct Effects {
    ended: Vec<Ended>,
    deliveries: Vec<NewDelivery>,
}

/// What wants to be told of the events of a batch.
struct Wanted {
    subscriptions: Vec<Subscription>,
    /// The jobs' own webhooks.
    of_jobs: HashMap<Uuid, JobSubscription>,
}

impl Wanted {
    /// Read for each batch: whoever has registered an endpoint is told of all that happens from then on. The webhook of
    /// a job was committed before its first event was sent.
    async fn read(pool: &Pool, batch: &RecordBatch) -> Result<Self, store::Error> {
        let jobs: HashSet<Uuid> = batch.parts.iter().flat_map(|part| &part.records).filter_map(job).collect();
        let jobs: Vec<Uuid> = jobs.into_iter().collect();
        let of_jobs = webhooks::of_jobs(pool, &jobs).await?;
        let of_jobs = of_jobs.into_iter().map(|subscription| (subscription.job, subscription)).collect();
        Ok(Self { subscriptions: webhooks::subscriptions(pool).await?, of_jobs })
    }

    /// Judges an event by its header and key, so that most events need not be decoded.
    fn may_matter(&self, record: &Inbound) -> bool {
        let Some(kind) = record.header_text(header::CE_TYPE) else { return true };
        let may_end_a_job = EventKind::parse(kind).is_none_or(EventKind::ends_job); // one of a later version may
        let of_job = || job(record).and_then(|job| self.of_jobs.get(&job));
        may_end_a_job
            || self.subscriptions.iter().any(|subscription| payload::is_wanted(&subscription.events, kind))
            || of_job().is_some_and(|subscription| payload::is_wanted(&subscription.events, kind))
    }
}

/// The job that an event is of: its record's key.
fn job(record: &Inbound) -> Option<Uuid> {
    Uuid::try_parse_ascii(record.key.as_deref()?).ok()
}

/// A job has ended.
struct Ended {
    event: JobEvent,
    trace: Option<TraceContext>,
}

impl TakeIn {
    /// The deliveries that tell of an event: one for each endpoint that wants it, and one for its job's own webhook.
    fn deliveries(&self, event: &JobEvent, trace: Option<TraceContext>, wanted: &Wanted) -> Vec<NewDelivery> {
        let (kind, job) = (event.kind.as_str(), event.facts.job.uuid());
        let endpoints = wanted.subscriptions.iter().filter(|subscription| {
            subscription.tenant == event.facts.tenant && payload::is_wanted(&subscription.events, kind)
        });
        let own = wanted.of_jobs.get(&job).filter(|own| payload::is_wanted(&own.events, kind));
        let receivers = endpoints
            .map(|subscription| (subscription.endpoint, false))
            .chain(own.map(|subscription| (subscription.receiver, true)));
        // The same for all of them; most events are wanted by none.
        let body = LazyCell::new(|| payload::of_event(event, &self.api_url));
        let delivery = |(endpoint, of_job)| NewDelivery {
            id: self.ids.uuid_v7(self.clock.now_ms()),
            endpoint,
            of_job,
            tenant: event.facts.tenant.clone(),
            job: Some(job),
            kind: kind.to_owned(),
            body: body.clone(),
            traceparent: trace.map(|context| context.to_string()),
        };
        receivers.map(delivery).collect()
    }
}

impl Service for TakeIn {
    type Effects = Effects;

    async fn read(&mut self, batch: &RecordBatch) -> Result<Effects, inbox::Error> {
        let wanted = Wanted::read(&self.pool, batch).await?;
        let mut effects = Effects::default();
        let records = batch.parts.iter().flat_map(|part| &part.records);
        for record in records.filter(|record| wanted.may_matter(record)) {
            let event = match self.reader.read(record.value.as_deref(), decode_event).await {
                Ok(event) => event,
                Err(Unreadable::Never(_) | Unreadable::Newer(_)) => {
                    metrics::counter!("meanwhile_unreadable_skipped_total", "role" => "notifier").increment(1);
                    continue;
                }
                Err(Unreadable::NotNow(error)) => return Err(error.into()),
            };
            let trace = Trace::from_headers(&record.headers).map(|trace| trace.context);
            effects.deliveries.extend(self.deliveries(&event, trace, &wanted));
            if event.status.is_final() && (event.kind.ends_job() || matches!(event.kind, EventKind::Other(_))) {
                effects.ended.push(Ended { event, trace });
            }
        }
        Ok(effects)
    }

    fn refuse(&mut self, _record: &Inbound, _reason: &str) -> Effects {
        Effects::default()
    }

    async fn write(&mut self, tx: &mut Tx, effects: &mut Effects) -> Result<(), inbox::Error> {
        if !effects.deliveries.is_empty() {
            webhooks::insert(tx, &effects.deliveries).await?;
        }
        Ok(())
    }

    fn committed(&mut self, effects: Effects) {
        if !effects.deliveries.is_empty() {
            self.wake.notify_one();
        }
        effects.ended.iter().for_each(log_end);
    }
}

/// A job that took so long is told of.
const LATE: Duration = Duration::from_secs(3_600);

fn log_end(Ended { event, trace }: &Ended) {
    let JobEvent { facts: JobFacts { job, tenant, flow, .. }, status, .. } = event;
    let took = Duration::from_millis(u64::try_from(event.at_ms - event.accepted_at_ms).unwrap_or(0));
    metrics::counter!("meanwhile_jobs_ended_total", "flow" => flow.clone(), "status" => status.as_str().to_owned())
        .increment(1);
    metrics::histogram!("meanwhile_job_seconds", "flow" => flow.clone(), "status" => status.as_str().to_owned())
        .record(took);
    let trace_id = trace.map(|context| context.trace_id.to_string());
    if took >= LATE {
        let took_s = took.as_secs();
        tracing::info!(job.id = %job, tenant, flow, trace_id, status = status.as_str(), took_s, "job ended late");
    } else {
        tracing::debug!(job.id = %job, tenant, flow, trace_id, status = status.as_str(), "job ended");
    }
}
