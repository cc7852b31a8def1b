//! `JobEvent` as Avro has it.

use std::borrow::Cow;

use flow::answer::Answer;
use flow::event::{CarriedEvent, EventKind, JobEvent, JobStatus};
use flow::facts::JobFacts;
use flow::slip::{HoldReason, Phase};
use serde::{Deserialize, Serialize};

use crate::error::{DecodeError, EncodeError};
use crate::field::{forward, job, long};
use crate::json::{Bytes, Json};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "JobEvent")]
pub(crate) struct EventWire<'a> {
    job: Cow<'a, str>,
    tenant: Cow<'a, str>,
    flow: Cow<'a, str>,
    version: Cow<'a, str>,
    key: Cow<'a, str>,
    #[serde(default)]
    correlation_id: Cow<'a, str>,
    kind: Cow<'a, str>,
    status: Cow<'a, str>,
    hop: u32,
    #[serde(default)]
    index: u32,
    #[serde(default)]
    branch: Cow<'a, str>,
    #[serde(default)]
    step: Option<Cow<'a, str>>,
    #[serde(default = "forward")]
    phase: Cow<'a, str>,
    #[serde(default)]
    visit: u32,
    #[serde(default)]
    attempts: u32,
    at_ms: i64,
    accepted_at_ms: i64,
    #[serde(default)]
    steps_total: u32,
    #[serde(default)]
    retry_of: Option<Cow<'a, str>>,
    #[serde(default)]
    next_attempt_after_ms: Option<i64>,
    #[serde(default)]
    data: Option<Json<'a>>,
    #[serde(default)]
    reason: Option<Cow<'a, str>>,
    #[serde(default)]
    signal: Option<Cow<'a, str>>,
    #[serde(default)]
    actor: Option<Cow<'a, str>>,
    #[serde(default)]
    branch_status: Option<Cow<'a, str>>,
    #[serde(default)]
    queue: Option<Cow<'a, str>>,
    #[serde(default)]
    deadline_ms: Option<i64>,
    #[serde(default)]
    answer: Option<Json<'a>>,
    #[serde(default)]
    answer_bytes: Option<Bytes>,
}

impl<'a> TryFrom<&'a JobEvent> for EventWire<'a> {
    type Error = EncodeError;

    fn try_from(event: &'a JobEvent) -> Result<Self, EncodeError> {
        let (carried, answer) = (&event.carried, event.answer.as_ref());
        Ok(Self {
            job: event.job.to_string().into(),
            tenant: event.tenant.as_str().into(),
            flow: event.flow.as_str().into(),
            version: event.version.as_str().into(),
            key: event.key.as_str().into(),
            correlation_id: event.correlation_id.as_str().into(),
            kind: event.kind.as_str().into(),
            status: event.status.as_str().into(),
            hop: event.hop,
            index: event.index,
            branch: event.branch.as_str().into(),
            step: event.step.as_deref().map(Cow::Borrowed),
            phase: event.phase.as_str().into(),
            visit: event.visit,
            attempts: event.attempts,
            at_ms: event.at_ms,
            accepted_at_ms: event.accepted_at_ms,
            steps_total: event.steps_total,
            retry_of: event.retry_of.map(|job| job.to_string().into()),
            next_attempt_after_ms: event
                .next_attempt_after_ms
                .map(|ms| long("next_attempt_after_ms", ms))
                .transpose()?,
            data: Json::optional("data", event.data.as_ref())?,
            reason: event.reason.as_ref().map(|reason| reason.as_str().into()),
            signal: event.signal.as_deref().map(Cow::Borrowed),
            actor: event.actor.as_deref().map(Cow::Borrowed),
            branch_status: carried.branch_status.as_deref().map(Cow::Borrowed),
            queue: carried.queue.as_deref().map(Cow::Borrowed),
            deadline_ms: carried.deadline_ms,
            answer: answer.map(|answer| Json::owned("answer", answer.head())).transpose()?,
            answer_bytes: answer.and_then(Answer::bytes).map(|bytes| Bytes(bytes.to_vec())),
        })
    }
}

impl TryFrom<EventWire<'_>> for JobEvent {
    type Error = DecodeError;

    fn try_from(wire: EventWire<'_>) -> Result<Self, DecodeError> {
        let text = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        // One that a later version forms in another way is passed over: the result is there all the same.
        let bytes = wire.answer_bytes.map(|bytes| bytes.0);
        let answer = wire.answer.and_then(|head| Answer::from_parts(&head.into_value(), bytes));
        let duration = |ms: i64| u64::try_from(ms).map_err(|_| DecodeError::field("next_attempt_after_ms", ms));
        Ok(Self {
            facts: JobFacts {
                job: job("job", &wire.job)?,
                tenant: wire.tenant.into_owned(),
                flow: wire.flow.into_owned(),
                version: wire.version.into_owned(),
                key: wire.key.into_owned(),
                correlation_id: wire.correlation_id.into_owned(),
                accepted_at_ms: wire.accepted_at_ms,
                retry_of: wire.retry_of.map(|text| job("retry_of", &text)).transpose()?,
            },
            kind: EventKind::read(&wire.kind).ok_or_else(|| DecodeError::field("kind", &wire.kind))?,
            status: JobStatus::read(&wire.status).ok_or_else(|| DecodeError::field("status", &wire.status))?,
            hop: wire.hop,
            index: wire.index,
            branch: wire.branch.into_owned(),
            step: wire.step.map(Cow::into_owned),
            // The view shows the step by it, and no more. One of a later version comes with kinds of its own.
            phase: Phase::parse(&wire.phase).unwrap_or(Phase::Forward),
            visit: wire.visit,
            attempts: wire.attempts,
            at_ms: wire.at_ms,
            steps_total: wire.steps_total,
            next_attempt_after_ms: wire.next_attempt_after_ms.map(duration).transpose()?,
            data: wire.data.map(Json::into_value),
            reason: wire.reason.as_deref().and_then(HoldReason::read),
            signal: text(wire.signal),
            actor: text(wire.actor),
            answer,
            carried: CarriedEvent {
                branch_status: text(wire.branch_status),
                queue: text(wire.queue),
                deadline_ms: wire.deadline_ms,
            },
        })
    }
}
