//! The Kafka door: records of `meanwhile.commands` become jobs, through the same acceptance as HTTP.
//!
//! Rule 3: the jobs of a batch, the dead letters for what could not be understood, and the next offsets commit in one
//! Postgres transaction.

use std::sync::Arc;

use bus::{Apply, ApplyError, Batch, Inbound, Part, Record};
use events::command::Command;
use events::dead_letter::{self, Failure};
use events::trace::Trace;
use flow::id::JobId;
use store::acceptances::{Accepted, NewAcceptance, accept_batch_in};
use store::offsets::{OffsetAdvance, advance};
use store::outbox;

use crate::context::{clean_correlation_id, continue_trace};
use crate::http::Api;
use crate::idempotency;
use crate::plan::{Asked, BadInput, Planner};

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

impl Commands {
    fn understand(&self, record: &Inbound) -> Result<NewAcceptance, Refusal> {
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
            trace: continue_trace(Trace::from_headers(&record.headers), &api.ids),
            now_ms,
        };
        self.planner.plan(&definition, asked).map_err(|error| refuse("schema-violation", violations(error)))
    }

    fn dead_letter(&self, record: &Inbound, class: &str, reason: &str) -> Record {
        metrics::counter!("meanwhile_dead_letters_total", "role" => "ingest").increment(1);
        tracing::warn!(
            topic = record.topic,
            partition = record.partition,
            offset = record.offset,
            reason,
            "command refused"
        );
        dead_letter::record(&self.planner.topics, record, &Failure::once(class, reason, self.api.clock.now_ms()))
    }

    async fn commit(
        &self,
        batch: &Batch,
        asked: &[(&Inbound, NewAcceptance)],
        mut refused: Vec<Record>,
    ) -> Result<(), store::Error> {
        let mut tx = self.api.pool.begin().await?;
        let acceptances: Vec<NewAcceptance> = asked.iter().map(|(_, acceptance)| acceptance.clone()).collect();
        let outcomes = accept_batch_in(&mut tx, &acceptances).await?;
        for ((record, acceptance), outcome) in asked.iter().zip(outcomes) {
            match outcome {
                Accepted::New => {
                    let flow = acceptance.acceptance.flow.clone();
                    metrics::counter!("meanwhile_jobs_accepted_total", "flow" => flow).increment(1);
                }
                Accepted::Replayed { same_fingerprint: true, .. } => {}
                Accepted::Replayed { job, same_fingerprint: false } => {
                    let reason = format!("the `id` was used before, for another command (job {job})");
                    refused.push(self.dead_letter(record, "id-reused", &reason));
                }
            }
        }
        outbox::append(&mut tx, &refused).await?;
        advance(&mut tx, &advances(&batch.parts)).await?;
        tx.commit().await
    }
}

fn violations(BadInput(errors): BadInput) -> String {
    let told: Vec<String> =
        errors.iter().take(VIOLATIONS_MAX).map(|error| format!("#{}: {}", error.pointer, error.detail)).collect();
    let more = errors.len().saturating_sub(VIOLATIONS_MAX);
    if more > 0 { format!("{}; and {more} more", told.join("; ")) } else { told.join("; ") }
}

/// A position of 0 is what a partition has before anything is stored for it.
fn advances(parts: &[Part]) -> Vec<OffsetAdvance> {
    let advance = |part: &Part| OffsetAdvance {
        topic: part.topic.clone(),
        partition: part.partition,
        expected: (part.first_offset > 0).then_some(part.first_offset),
        next: part.next_offset,
    };
    parts.iter().map(advance).collect()
}

fn verdict(error: store::Error) -> ApplyError {
    match error {
        store::Error::Conflict { .. } => ApplyError::Conflict,
        error if error.is_row_error() => ApplyError::Record(error.into()),
        error => ApplyError::NotNow(error.into()),
    }
}

impl Apply for Commands {
    async fn apply(&mut self, batch: &Batch) -> Result<(), ApplyError> {
        let (mut asked, mut refused) = (Vec::new(), Vec::new());
        for record in batch.parts.iter().flat_map(|part| &part.records) {
            match self.understand(record) {
                Ok(acceptance) => asked.push((record, acceptance)),
                Err(Refusal { class, reason }) => refused.push(self.dead_letter(record, class, &reason)),
            }
        }
        self.commit(batch, &asked, refused).await.map_err(verdict)
    }

    async fn bury(&mut self, part: &Part, reason: &str) -> Result<(), ApplyError> {
        let refused = part.records.iter().map(|record| self.dead_letter(record, "not-storable", reason)).collect();
        let batch = Batch { parts: vec![part.clone()] };
        self.commit(&batch, &[], refused).await.map_err(verdict)
    }

    fn heard(&mut self, outcome: Result<(), &anyhow::Error>) {
        match outcome {
            Ok(()) => self.api.readiness.ready("postgres"),
            Err(error) => self.api.readiness.missing("postgres", format!("{error:#}")),
        }
    }
}
