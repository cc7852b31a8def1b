//! The Kafka door: records of `meanwhile.commands` become jobs, through the same acceptance as HTTP.
//!
//! Rule 3: the jobs of a batch, the dead letters for records that are no job, and the next offsets commit in one
//! Postgres transaction.
//!
//! Commands of a flow use up its allowances as requests do, and take places among its jobs that are not over. They wait
//! in their topic where there is no more, and those behind them wait with them: the topic is one tenant's, and its
//! order stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus::{Inbound, Record, RecordBatch};
use events::command::Command;
use events::dead_letter::{Class, Refused, RefusedRecord};
use events::trace::Trace;
use flow::definition::limit::KEY_BYTES_MAX;
use flow::facts::JobFacts;
use flow::id::JobId;
use inbox::Service;
use service_kit::trace::Span;
use store::acceptances::{Acceptance, Accepted, NewAcceptance, accept_batch_in};
use store::{Tx, outbox};
use web::caller::Caller;
use web::context::clean_correlation_id;

use crate::open_jobs::Admission;
use crate::plan::{BadInput, JobRequest, Planner};
use crate::request_parts::Start;
use crate::spans;
use crate::state::Api;
use crate::webhooks::of_job;
use crate::{accept, idempotency};

/// The most schema violations in one reason.
const VIOLATIONS_MAX: usize = 5;

/// Takes in commands.
pub(crate) struct Commands {
    pub(crate) api: Arc<Api>,
    pub(crate) planner: Planner,
    pub(crate) caller: Caller,
    /// True while commands wait for an allowance.
    pub(crate) is_waiting: bool,
}

/// The effects of a batch of commands.
#[derive(Default)]
pub(crate) struct Understood {
    acceptances: Vec<NewAcceptance>,
    /// Record and span of each acceptance. The spans end with the commit.
    sources: Vec<(Inbound, Span)>,
    /// The acceptances that made a new job, by index; known once they are written.
    accepted: Vec<usize>,
    /// Their places among the jobs that are not over, one entry a flow. They are given back with this, but for those of
    /// new jobs.
    admissions: Vec<Admission>,
    /// Records that are no job.
    dead_letters: Vec<Record>,
    /// The reasons, one for each dead letter.
    refused: Vec<RefusedRecord>,
}

impl Commands {
    fn understand(&self, record: &Inbound, span: &Span) -> Result<NewAcceptance, Refused> {
        let refuse = |class, reason: String| Refused { class, reason };
        let command = Command::parse(record.value.as_deref())
            .map_err(|error| refuse(Class::InvalidCommand, error.to_string()))?;
        if let Some(id) = &command.id {
            idempotency::check(id).map_err(|error| refuse(Class::InvalidCommand, error.to_string()))?;
        }
        let Some(definition) = self.api.catalog.active(&command.flow) else {
            return Err(refuse(Class::UnknownFlow, self.api.catalog.no_such_flow(&command.flow)));
        };
        // Anything may stand in the record's key where the flow does not use it.
        let fallback_key = if definition.has_key() { None } else { record_key(record)? };
        let (api, now_ms) = (&self.api, self.api.clock.now_ms());
        let start_after_ms =
            command.start_after_ms(now_ms).map_err(|error| refuse(Class::InvalidCommand, error.to_string()))?;
        let webhook = command.callback.map(|callback| of_job::checked(callback, &self.caller.tenant, &api.guard));
        let webhook = webhook.transpose().map_err(|why| refuse(Class::InvalidCommand, why.to_string()))?;
        let correlation_id = command.correlation_id.as_deref().and_then(clean_correlation_id);
        let start = Start { delay: command.delay, start_at: command.start_at };
        let request = JobRequest {
            job: JobId::new(api.ids.uuid_v7(now_ms)),
            tenant: self.caller.tenant.clone(),
            submitted_by: self.caller.subject.clone(),
            input: command.input,
            fallback_key,
            idempotency_key: command.id,
            correlation_id: correlation_id.unwrap_or_else(|| api.ids.uuid().to_string()),
            trace: span.carry_on(Trace::from_headers(&record.headers), &api.ids),
            now_ms,
            retry_of: None,
            start_after_ms,
            start: start.written(),
            webhook,
        };
        self.planner.plan(&definition, request).map_err(|error| refuse(Class::SchemaViolation, violations(error)))
    }

    pub(crate) fn reject(&self, record: &Inbound, refused: Refused, understood: &mut Understood) {
        understood.dead_letters.push(self.planner.writer.refused(record, &refused, self.api.clock.now_ms()));
        understood.refused.push(RefusedRecord::new(record, refused));
    }
}

impl Understood {
    pub(crate) fn accept(&mut self, acceptance: NewAcceptance, record: &Inbound, span: Span) {
        self.acceptances.push(acceptance);
        self.sources.push((record.clone(), span));
    }

    /// The commands of each flow.
    fn by_flow(&self) -> BTreeMap<&str, OfFlow> {
        let mut flows: BTreeMap<&str, OfFlow> = BTreeMap::new();
        for (new, (record, _)) in self.acceptances.iter().zip(&self.sources) {
            let facts = &new.acceptance.facts;
            let OfFlow { jobs, bytes } = flows.entry(&facts.flow).or_default();
            jobs.push(facts.job);
            *bytes += record.value.as_ref().map_or(0, Vec::len) as u64;
        }
        flows
    }
}

/// The commands of one flow: the jobs that they would be, and their bytes.
#[derive(Default)]
struct OfFlow {
    jobs: Vec<JobId>,
    bytes: u64,
}

impl OfFlow {
    const fn count(&self) -> u64 {
        self.jobs.len() as u64
    }
}

impl Commands {
    /// [`Commands::take_places`], and keeps them with the effects.
    pub(crate) fn admit(&mut self, understood: &mut Understood) -> Result<(), inbox::Error> {
        understood.admissions = self.take_places(understood)?;
        Ok(())
    }

    /// Takes places among the jobs that are not over. Other allowances are charged once the jobs are stored.
    ///
    /// # Errors
    /// The allowances of a flow do not hold its commands.
    fn take_places(&mut self, understood: &Understood) -> Result<Vec<Admission>, inbox::Error> {
        let (tenant, quotas) = (&self.caller.tenant, &self.api.quotas);
        let mut admissions = Vec::new();
        let used_up = understood.by_flow().into_iter().find(|(flow, commands)| {
            let of = (tenant.as_str(), *flow);
            let holds = quotas.hold(of, commands.count(), commands.bytes);
            let admission = if holds { quotas.places(of, &commands.jobs) } else { None };
            let is_held = admission.is_some();
            admissions.extend(admission);
            !is_held
        });
        let Some((flow, commands)) = used_up else {
            self.is_waiting = false;
            return Ok(admissions);
        };
        // More of them are halved before they wait.
        if commands.count() == 1 && !std::mem::replace(&mut self.is_waiting, true) {
            metrics::counter!("meanwhile_commands_waits_total", "flow" => flow.to_owned()).increment(1);
            tracing::warn!(flow, "commands wait: the flow's allowance (`ingest.flow_limits`) is used up");
        }
        Err(inbox::Error::NotYet)
    }
}

impl Service for Commands {
    type Effects = Understood;

    async fn read(&mut self, batch: &RecordBatch) -> Result<Understood, inbox::Error> {
        // Without room, commands wait in their topic.
        self.api.check_room()?;
        let mut understood = Understood::default();
        let mut has_looked = false;
        for record in batch.parts.iter().flat_map(|part| &part.records) {
            let span = spans::command(record, self.planner.writer.topics.prefix());
            let mut meant = self.understand(record, &span);
            if !has_looked && meant.as_ref().is_err_and(|refused| refused.class == Class::UnknownFlow) {
                // Applied a moment ago, it may still be on its way through the outbox.
                has_looked = true;
                let stored = store::flows::all(&self.api.pool).await?;
                stored.into_iter().for_each(|applied| self.api.catalog.learn_stored(applied));
                meant = self.understand(record, &span);
            }
            match meant {
                Ok(acceptance) => understood.accept(acceptance, record, span),
                Err(refused) => {
                    span.fail(refused.class.as_str(), &refused.reason);
                    self.reject(record, refused, &mut understood);
                }
            }
        }
        self.admit(&mut understood)?;
        Ok(understood)
    }

    fn refuse(&mut self, record: &Inbound, reason: &str) -> Understood {
        let mut understood = Understood::default();
        self.reject(record, Refused::new(Class::NotStorable, reason), &mut understood);
        understood
    }

    async fn write(&mut self, tx: &mut Tx, understood: &mut Understood) -> Result<(), inbox::Error> {
        let outcomes = accept_batch_in(tx, &understood.acceptances).await?;
        let sources = std::mem::take(&mut understood.sources);
        for (index, ((record, span), outcome)) in sources.iter().zip(outcomes).enumerate() {
            match outcome {
                Accepted::New => {
                    span.text("meanwhile.job.id", understood.acceptances[index].acceptance.job);
                    understood.accepted.push(index);
                }
                Accepted::Replayed { job, same_fingerprint: true } => {
                    span.text("meanwhile.job.id", job);
                }
                Accepted::Replayed { job, same_fingerprint: false } => {
                    let reason = format!("the `id` was used before, for another command (job {job})");
                    let refused = Refused::new(Class::IdReused, reason);
                    span.fail(refused.class.as_str(), &refused.reason);
                    self.reject(record, refused, understood);
                }
            }
        }
        understood.sources = sources;
        Ok(outbox::append(tx, &understood.dead_letters).await?)
    }

    fn committed(&mut self, mut understood: Understood) {
        for (flow, commands) in understood.by_flow() {
            self.api.quotas.charge((&self.caller.tenant, flow), commands.count(), commands.bytes);
        }
        let mut admissions = std::mem::take(&mut understood.admissions);
        for index in &understood.accepted {
            let job = understood.acceptances[*index].acceptance.facts.job;
            // Only one of them knows it.
            admissions.iter_mut().for_each(|admission| admission.learn(job, Ok(&Accepted::New)));
        }
        understood.refused.iter().for_each(log_refused);
        understood.accepted.iter().for_each(|index| log_accepted(&understood.acceptances[*index].acceptance));
    }
}

/// The ordering key that the record's key is; none where it is empty.
fn record_key(record: &Inbound) -> Result<Option<String>, Refused> {
    let refuse = |reason| Err(Refused { class: Class::InvalidKey, reason });
    match record.key.as_deref().map(str::from_utf8) {
        None | Some(Ok("")) => Ok(None),
        Some(Ok(key)) if key.len() > KEY_BYTES_MAX || key.contains('\0') => {
            refuse(format!("the record's key has {} bytes of at most {KEY_BYTES_MAX}, none of them NUL", key.len()))
        }
        Some(Ok(key)) => Ok(Some(key.to_owned())),
        Some(Err(error)) => refuse(format!("the record's key is not UTF-8: {error}")),
    }
}

fn log_accepted(accepted: &Acceptance) {
    let Acceptance { facts: JobFacts { job, tenant, flow, .. }, trace_id, .. } = accepted;
    let trace_id = trace_id.map(|id| id.to_string());
    tracing::debug!(job.id = %job, flow, tenant, trace_id, "command accepted");
    accept::count(flow);
}

fn log_refused(record: &RefusedRecord) {
    let RefusedRecord { topic, partition, offset, refused: Refused { class, reason } } = record;
    let class = class.as_str();
    metrics::counter!("meanwhile_dead_letters_total", "role" => "ingest", "class" => class).increment(1);
    tracing::warn!(topic, partition, offset, class, reason, "command refused");
}

pub(crate) fn violations(BadInput(errors): BadInput) -> String {
    let told: Vec<String> =
        errors.iter().take(VIOLATIONS_MAX).map(|error| format!("#{}: {}", error.pointer, error.detail)).collect();
    let more = errors.len().saturating_sub(VIOLATIONS_MAX);
    if more > 0 { format!("{}; and {more} more", told.join("; ")) } else { told.join("; ") }
}
