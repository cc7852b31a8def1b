//! Plans a job: turns a request into the values to be stored. Pure: ids and the time are handed in. Both doors, HTTP
//! and Kafka, use it.

use std::borrow::Cow;

use events::limit::RECORD_BYTES_MAX;
use events::trace::Trace;
use events::{Record, Writer};
use flow::decide::{NewJob, start, start_later};
use flow::definition::{Definition, InputError};
use flow::document::{StoredDocument, described};
use flow::facts::JobFacts;
use flow::id::JobId;
use serde_json::Value;
use store::acceptances::{Acceptance, Idempotency, NewAcceptance};
use store::webhooks::JobWebhook;

use crate::idempotency::fingerprint;
use crate::webhooks::of_job;

/// A request for a job, parsed but not checked against its flow.
pub(crate) struct JobRequest {
    pub(crate) job: JobId,
    pub(crate) tenant: String,
    /// The subject that asks, for the audit log.
    pub(crate) submitted_by: String,
    pub(crate) input: Value,
    /// The ordering key where the flow has none.
    pub(crate) fallback_key: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    /// The caller's correlation id, or ours.
    pub(crate) correlation_id: String,
    pub(crate) trace: Trace,
    /// Milliseconds since the Unix epoch.
    pub(crate) now_ms: i64,
    /// The job that this one starts anew.
    pub(crate) retry_of: Option<JobId>,
    /// The milliseconds until it is to start; none: at once.
    pub(crate) start_after_ms: Option<u64>,
    /// The begin as the caller has written it.
    pub(crate) start: Option<String>,
    /// The webhook that it asks for its job.
    pub(crate) webhook: Option<JobWebhook>,
}

/// The settings and schema ids that all requests share.
#[derive(Clone)]
pub(crate) struct Planner {
    pub(crate) writer: Writer,
    /// Idempotency keys are remembered for this time.
    pub(crate) idempotency_retention_ms: i64,
}

/// The flow does not accept this input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadInput(pub(crate) Vec<InputError>);

impl BadInput {
    pub(crate) fn whole(detail: String) -> Self {
        Self(vec![InputError { pointer: String::new(), detail }])
    }
}

impl Planner {
    /// Checks the input and makes the acceptance with its first event and its first slip.
    pub(crate) fn plan(&self, definition: &Definition, request: JobRequest) -> Result<NewAcceptance, BadInput> {
        if definition.upload().is_some() && StoredDocument::of(&request.input).is_none() {
            let detail = "the flow takes a document, as the body of a request of its own (`upload`)";
            return Err(BadInput::whole(detail.to_owned()));
        }
        let errors = definition.validate_input(&request.input);
        if !errors.is_empty() {
            return Err(BadInput(errors));
        }
        let fallback = request.fallback_key.unwrap_or_else(|| request.job.to_string());
        let key =
            definition.ordering_key(&request.input, &fallback).map_err(|error| BadInput::whole(error.to_string()))?;
        if key.contains('\0') {
            return Err(BadInput::whole("the ordering key holds a NUL character, which cannot be stored".to_owned()));
        }
        let terms = terms(request.start.as_deref(), request.webhook.as_ref());
        let idempotency = request.idempotency_key.map(|key| Idempotency {
            // Keys for starting a job anew have a scope of their own, apart from keys for submitting to its flow.
            scope: request.retry_of.map_or_else(|| definition.name().to_owned(), |job| format!("jobs/{job}/retry")),
            key,
            fingerprint: fingerprint(definition.name(), &told_by(&request.input), terms.as_deref()),
            retention_ms: self.idempotency_retention_ms,
        });
        let acceptance = Acceptance {
            facts: JobFacts {
                job: request.job,
                tenant: request.tenant.clone(),
                flow: definition.name().to_owned(),
                version: definition.version().to_owned(),
                key: key.clone(),
                correlation_id: request.correlation_id.clone(),
                accepted_at_ms: request.now_ms,
                retry_of: request.retry_of,
            },
            input: request.input.to_string().into_bytes(),
            deadline_ms: definition
                .deadline_ms()
                .map(|deadline_ms| deadline_ms.saturating_add(request.start_after_ms.unwrap_or_default()))
                .map(|deadline_ms| request.now_ms.saturating_add_unsigned(deadline_ms)),
            steps_total: u32::try_from(definition.steps().len()).unwrap_or(u32::MAX),
            trace_id: Some(request.trace.context.trace_id),
        };
        let job = NewJob {
            job: request.job,
            tenant: request.tenant,
            key,
            input: request.input,
            correlation_id: request.correlation_id,
            priority: definition.priority() as u8,
            retry_of: request.retry_of,
        };
        let decision = match request.start_after_ms {
            None => start(definition, job, request.now_ms),
            Some(after_ms) => start_later(definition, job, after_ms, request.now_ms),
        };
        let records =
            self.writer.decision(&decision, &request.trace).map_err(|error| BadInput::whole(error.to_string()))?;
        if let Some(bytes) = records.iter().map(Record::size_bytes).find(|bytes| *bytes > RECORD_BYTES_MAX) {
            let detail =
                format!("with this input the job's first record has {bytes} bytes, {RECORD_BYTES_MAX} at most");
            return Err(BadInput::whole(detail));
        }
        let (webhook, submitted_by) = (request.webhook, Some(request.submitted_by));
        Ok(NewAcceptance { acceptance, idempotency, records, webhook, submitted_by })
    }
}

/// What a request asks for beside its input, as its fingerprint sees it; none where that is nothing.
fn terms(start: Option<&str>, webhook: Option<&JobWebhook>) -> Option<String> {
    let told = webhook.map(of_job::told);
    match (start, told) {
        (Some(start), Some(told)) => Some(format!("{start}\0{told}")),
        (start, told) => start.map(str::to_owned).or(told),
    }
}

/// An input as its fingerprint sees it. Each upload of the same bytes has a name of its own.
fn told_by(input: &Value) -> Cow<'_, Value> {
    if StoredDocument::of(input).is_some() { described(input) } else { Cow::Borrowed(input) }
}
