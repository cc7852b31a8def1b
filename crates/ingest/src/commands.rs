//! The Kafka door: records of `meanwhile.commands` become jobs, through the same acceptance as HTTP.
//!
//! Rule 3: the jobs of a batch, the dead letters for what could not be understood, and the next offsets commit in one
//! Postgres transaction.

use std::sync::Arc;

use bus::{Apply, ApplyError, Batch, Inbound, Record};
use events::command::Command;
use events::dead_letter::{self, Failure};
use events::trace::Trace;
use flow::definition::limit::KEY_BYTES_MAX;
use flow::id::JobId;
use service_kit::trace::Span;
use store::acceptances::{Acceptance, Accepted, NewAcceptance, accept_batch_in};
use store::offsets::advance;
use store::outbox;

use crate::context::clean_correlation_id;
use crate::idempotency;
use crate::plan::{Asked, BadInput, Planner};
use crate::spans;
use crate::state::Api;

/// Schema violations told in one reason, at most.
const VIOLATIONS_MAX: usize = 5;

/// Takes in commands.
pub(crate) struct Commands {
    pub(crate) api: Arc<Api>,
    pub(crate) planner: Planner,
}

/// Why a record is no job: a short class and a sentence.
struct Refusal {
    class: &'static str,
    reason: String,
}

/// A command that is understood, on its way to be a job.
struct Understood<'a> {
    record: &'a Inbound,
    acceptance: NewAcceptance,
    span: Span,
}

/// A record that is no job, on its way to the dead letters.
struct Refused<'a> {
    record: &'a Inbound,
    class: &'static str,
    reason: String,
}

impl Commands {
    fn understand(&self, record: &Inbound, span: &Span) -> Result<NewAcceptance, Refusal> {
        let refuse = |class, reason: String| Refusal { class, reason };
        let command =
            Command::parse(record.value.as_deref()).map_err(|error| refuse("invalid-command", error.to_string()))?;
        if command.delay_ms.is_some() || command.callback.is_some() {
            let reason = "`delay` and `callback` are not supported by this version".to_owned();
            return Err(refuse("unsupported", reason));
        }
        if let Some(id) = &command.id {
            idempotency::check_length(id).map_err(|error| refuse("invalid-command", error.to_string()))?;
        }
        let key = match record.key.as_deref().map(str::from_utf8) {
            None | Some(Ok("")) => None,
            Some(Ok(key)) if key.len() > KEY_BYTES_MAX || key.contains('\0') => {
                let reason =
                    format!("the record's key has {} bytes of at most {KEY_BYTES_MAX}, none of them NUL", key.len());
                return Err(refuse("invalid-key", reason));
            }
            Some(Ok(key)) => Some(key.to_owned()),
            Some(Err(error)) => return Err(refuse("invalid-key", format!("the record's key is not UTF-8: {error}"))),
        };
        let Some(definition) = self.api.catalog.active(&command.flow) else {
            return Err(refuse("unknown-flow", self.api.catalog.no_such_flow(&command.flow)));
        };
        let (api, now_ms) = (&self.api, self.api.clock.now_ms());
        let correlation_id = command.correlation_id.as_deref().and_then(clean_correlation_id);
        let asked = Asked {
            job: JobId::new(api.ids.uuid_v7(now_ms)),
            tenant: api.config.default_tenant.clone(),
            input: command.input,
            fallback_key: key,
            idempotency_key: command.id,
            correlation_id: correlation_id.unwrap_or_else(|| api.ids.uuid().to_string()),
            trace: span.carry_on(Trace::from_headers(&record.headers), &api.ids),
            now_ms,
            retry_of: None,
        };
        self.planner.plan(&definition, asked).map_err(|error| refuse("schema-violation", violations(error)))
    }

    fn dead_letter(&self, refused: &Refused<'_>) -> Record {
        let failure = Failure::once(refused.class, refused.reason.as_str(), self.api.clock.now_ms());
        dead_letter::record(&self.planner.topics, refused.record, &failure)
    }

    async fn commit<'a>(
        &self,
        batch: &'a Batch,
        asked: Vec<Understood<'a>>,
        mut refused: Vec<Refused<'a>>,
    ) -> Result<(), store::Error> {
        // The spans end with the commit.
        let split = |asked: Understood<'a>| (asked.acceptance, (asked.record, asked.span));
        let (acceptances, sources): (Vec<_>, Vec<_>) = asked.into_iter().map(split).unzip();
        let mut tx = self.api.pool.begin().await?;
        let outcomes = accept_batch_in(&mut tx, &acceptances).await?;
        let mut accepted = Vec::new();
        for (((record, span), acceptance), outcome) in sources.iter().zip(acceptances).zip(outcomes) {
            let acceptance = acceptance.acceptance;
            match outcome {
                Accepted::New => {
                    span.text("meanwhile.job.id", acceptance.job);
                    accepted.push(acceptance);
                }
                Accepted::Replayed { job, same_fingerprint: true } => {
                    span.text("meanwhile.job.id", job);
                }
                Accepted::Replayed { job, same_fingerprint: false } => {
                    let reason = format!("the `id` was used before, for another command (job {job})");
                    span.fail("id-reused", &reason);
                    refused.push(Refused { record, class: "id-reused", reason });
                }
            }
        }
        let dead_letters: Vec<Record> = refused.iter().map(|refused| self.dead_letter(refused)).collect();
        outbox::append(&mut tx, &dead_letters).await?;
        advance(&mut tx, &batch.advances()).await?;
        tx.commit().await?;
        // Only now: what is tried again is not told twice.
        refused.iter().for_each(tell);
        accepted.into_iter().for_each(tell_accepted);
        Ok(())
    }
}

fn tell_accepted(accepted: Acceptance) {
    let Acceptance { job, tenant, flow, trace_id, .. } = accepted;
    let trace_id = trace_id.map(|id| format!("{id:032x}"));
    tracing::info!(job.id = %job, flow, tenant, trace_id, "command accepted");
    metrics::counter!("meanwhile_jobs_accepted_total", "flow" => flow).increment(1);
}

fn tell(refused: &Refused<'_>) {
    let Refused { record, class, reason } = refused;
    metrics::counter!("meanwhile_dead_letters_total", "role" => "ingest", "class" => *class).increment(1);
    let Inbound { topic, partition, offset, .. } = record;
    tracing::warn!(topic, partition, offset, class, reason, "command refused");
}

fn violations(BadInput(errors): BadInput) -> String {
    let told: Vec<String> =
        errors.iter().take(VIOLATIONS_MAX).map(|error| format!("#{}: {}", error.pointer, error.detail)).collect();
    let more = errors.len().saturating_sub(VIOLATIONS_MAX);
    if more > 0 { format!("{}; and {more} more", told.join("; ")) } else { told.join("; ") }
}

fn verdict(error: store::Error) -> ApplyError {
    ApplyError::of(error, store::Error::is_conflict, store::Error::is_row_error)
}

impl Apply for Commands {
    async fn apply(&mut self, batch: &Batch) -> Result<(), ApplyError> {
        // Commands wait where they are.
        self.api.check_capacity().map_err(|over| ApplyError::NotNow(over.into()))?;
        let (mut asked, mut refused) = (Vec::new(), Vec::new());
        for record in batch.parts.iter().flat_map(|part| &part.records) {
            let span = spans::command(record, self.planner.topics.prefix());
            match self.understand(record, &span) {
                Ok(acceptance) => asked.push(Understood { record, acceptance, span }),
                Err(Refusal { class, reason }) => {
                    span.fail(class, &reason);
                    refused.push(Refused { record, class, reason });
                }
            }
        }
        self.commit(batch, asked, refused).await.map_err(verdict)
    }

    async fn bury(&mut self, batch: &Batch, reason: &str) -> Result<(), ApplyError> {
        let refuse = |record| Refused { record, class: "not-storable", reason: reason.to_owned() };
        let refused = batch.parts.iter().flat_map(|part| &part.records).map(refuse).collect();
        self.commit(batch, Vec::new(), refused).await.map_err(verdict)
    }

    fn heard(&mut self, outcome: Result<(), &anyhow::Error>) {
        match outcome {
            Ok(()) => self.api.readiness.ready("postgres"),
            Err(error) if error.is::<bus::OverCapacity>() => {}
            Err(error) => self.api.readiness.missing("postgres", format!("{error:#}")),
        }
    }

    fn heard_of_kafka(&mut self, is_down: bool) {
        self.api.readiness.heard("kafka", is_down);
    }
}
