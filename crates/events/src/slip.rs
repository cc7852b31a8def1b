//! `Slip` as Avro has it: flat, JSON as bytes, the failure spread over fields of which `failure_code` says whether
//! there is one.

use std::borrow::Cow;

use flow::answer::StepAnswer;
use flow::facts::JobFacts;
use flow::slip::{Carried, CarriedStep, Completed, Failure, Released, ReleasedBy, Search, Slip};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{DecodeError, EncodeError};
use crate::field::{check_features, forward, job, phase};
use crate::json::Json;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Slip")]
pub(crate) struct SlipWire<'a> {
    job: Cow<'a, str>,
    tenant: Cow<'a, str>,
    flow: Cow<'a, str>,
    version: Cow<'a, str>,
    key: Cow<'a, str>,
    step: Cow<'a, str>,
    #[serde(default = "forward")]
    phase: Cow<'a, str>,
    #[serde(default)]
    branch: Cow<'a, str>,
    hop: u32,
    #[serde(default = "one")]
    visit: u32,
    #[serde(default)]
    attempt: u32,
    #[serde(default)]
    attempt_uncertain: bool,
    input: Json<'a>,
    #[serde(default)]
    done: Vec<CompletedWire<'a>>,
    #[serde(default)]
    failure_code: Option<Cow<'a, str>>,
    #[serde(default)]
    failure_step: Cow<'a, str>,
    #[serde(default)]
    failure_message: Cow<'a, str>,
    #[serde(default)]
    failure_status: Option<u16>,
    #[serde(default)]
    failure_attempts: u32,
    #[serde(default)]
    deadline_ms: Option<i64>,
    accepted_at_ms: i64,
    #[serde(default)]
    correlation_id: Cow<'a, str>,
    #[serde(default = "normal")]
    priority: u8,
    #[serde(default)]
    retry_of: Option<Cow<'a, str>>,
    #[serde(default)]
    requires: Vec<Cow<'a, str>>,
    #[serde(default)]
    missing: Option<Cow<'a, str>>,
    #[serde(default)]
    looks: u32,
    #[serde(default)]
    released_by: Option<Cow<'a, str>>,
    #[serde(default)]
    released_payload: Option<Json<'a>>,
    #[serde(default)]
    check_when: bool,
    #[serde(default)]
    run: Cow<'a, str>,
    #[serde(default)]
    join: Option<Cow<'a, str>>,
    #[serde(default)]
    item: Option<i64>,
    #[serde(default)]
    sequence: i64,
    #[serde(default)]
    visits: Vec<VisitsWire<'a>>,
    #[serde(default)]
    input_ref: Option<Cow<'a, str>>,
    #[serde(default)]
    not_before_ms: Option<i64>,
    #[serde(default)]
    step_state: Option<Json<'a>>,
    #[serde(default)]
    step_left_ms: Option<i64>,
    #[serde(default)]
    answers: Vec<AnswerWire<'a>>,
    #[serde(default)]
    answer_headers: Option<Json<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Visits")]
struct VisitsWire<'a> {
    step: Cow<'a, str>,
    #[serde(default = "one")]
    count: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "StepAnswer")]
struct AnswerWire<'a> {
    step: Cow<'a, str>,
    #[serde(default = "one")]
    visit: u32,
    #[serde(default = "ok")]
    status: u16,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Completed")]
struct CompletedWire<'a> {
    step: Cow<'a, str>,
    #[serde(default = "one")]
    visit: u32,
    #[serde(default)]
    output: Option<Json<'a>>,
    #[serde(default)]
    uncertain: bool,
    #[serde(default)]
    undone: bool,
    #[serde(default)]
    branch: Cow<'a, str>,
    #[serde(default)]
    sequence: i64,
    #[serde(default)]
    ended_at_ms: Option<i64>,
    #[serde(default)]
    error_code: Option<Cow<'a, str>>,
}

impl SlipWire<'_> {
    /// Refuses a slip that needs a feature which this version does not have.
    pub(crate) fn check_features(&self) -> Result<(), DecodeError> {
        check_features(&self.requires)
    }
}

const fn one() -> u32 {
    1
}

const fn ok() -> u16 {
    200
}

const fn normal() -> u8 {
    1
}

impl<'a> TryFrom<&'a Slip> for SlipWire<'a> {
    type Error = EncodeError;

    fn try_from(slip: &'a Slip) -> Result<Self, EncodeError> {
        let (failure, released, carried) = (slip.failure.as_ref(), slip.released.as_ref(), &slip.carried);
        let text = |of: fn(&'a Failure) -> &'a String| failure.map_or("", |failure| of(failure).as_str()).into();
        Ok(Self {
            job: slip.job.to_string().into(),
            tenant: slip.tenant.as_str().into(),
            flow: slip.flow.as_str().into(),
            version: slip.version.as_str().into(),
            key: slip.key.as_str().into(),
            step: slip.step.as_str().into(),
            phase: slip.phase.as_str().into(),
            branch: slip.branch.as_str().into(),
            hop: slip.hop,
            visit: slip.visit,
            attempt: slip.attempt,
            attempt_uncertain: slip.attempt_uncertain,
            input: Json::borrowed("input", &slip.input)?,
            done: slip.done.iter().map(CompletedWire::try_from).collect::<Result<_, _>>()?,
            failure_code: failure.map(|failure| failure.code.as_str().into()),
            failure_step: text(|failure| &failure.step),
            failure_message: text(|failure| &failure.message),
            failure_status: failure.and_then(|failure| failure.status),
            failure_attempts: failure.map_or(0, |failure| failure.attempts),
            deadline_ms: slip.deadline_ms,
            accepted_at_ms: slip.accepted_at_ms,
            correlation_id: slip.correlation_id.as_str().into(),
            priority: slip.priority,
            retry_of: slip.retry_of.map(|job| job.to_string().into()),
            requires: slip.requires.iter().map(Cow::from).collect(),
            missing: slip.search.as_ref().map(|search| search.missing.as_str().into()),
            looks: slip.search.as_ref().map_or(0, |search| search.looks),
            released_by: released.map(|released| released.by.as_str().into()),
            released_payload: Json::optional(
                "released_payload",
                released.and_then(|released| released.payload.as_ref()),
            )?,
            check_when: carried.check_when,
            run: carried.run.as_str().into(),
            join: carried.join.as_deref().map(Cow::from),
            item: carried.item,
            sequence: carried.sequence,
            visits: slip.visits.iter().map(|(step, count)| VisitsWire { step: step.into(), count: *count }).collect(),
            input_ref: carried.input_ref.as_deref().map(Cow::from),
            not_before_ms: carried.not_before_ms,
            step_state: Json::optional("step_state", slip.step_state.as_ref())?,
            step_left_ms: slip.step_left_ms,
            answers: slip.answers.iter().map(AnswerWire::from).collect(),
            answer_headers: headers_of(&slip.answers)?,
        })
    }
}

impl<'a> TryFrom<&'a Completed> for CompletedWire<'a> {
    type Error = EncodeError;

    fn try_from(completed: &'a Completed) -> Result<Self, EncodeError> {
        Ok(Self {
            step: completed.step.as_str().into(),
            visit: completed.visit,
            output: Json::optional("output", completed.output.as_ref())?,
            uncertain: completed.uncertain,
            undone: completed.undone,
            branch: completed.carried.branch.as_str().into(),
            sequence: completed.carried.sequence,
            ended_at_ms: completed.carried.ended_at_ms,
            error_code: completed.carried.error_code.as_deref().map(Cow::from),
        })
    }
}

impl<'a> From<&'a StepAnswer> for AnswerWire<'a> {
    fn from(answer: &'a StepAnswer) -> Self {
        Self { step: answer.step.as_str().into(), visit: answer.visit, status: answer.status }
    }
}

/// One mapping for each answer; none where no step keeps any.
fn headers_of(answers: &[StepAnswer]) -> Result<Option<Json<'static>>, EncodeError> {
    let entry = |(name, value): &(String, String)| (name.clone(), Value::from(value.as_str()));
    let mapping = |answer: &StepAnswer| answer.headers.iter().map(entry).collect::<Map<_, _>>();
    let has_some = answers.iter().any(|answer| !answer.headers.is_empty());
    let mappings = has_some.then(|| answers.iter().map(mapping).map(Value::Object).collect());
    mappings.map(|mappings| Json::owned("answer_headers", mappings)).transpose()
}

fn answers(wire: Vec<AnswerWire<'_>>, headers: Option<Value>) -> Vec<StepAnswer> {
    let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    let mapping = |at: usize| headers.as_ref().and_then(|all| all.get(at)?.as_object());
    let headers = |at: usize| mapping(at).into_iter().flatten().filter_map(text).collect();
    let answer = |(at, wire): (usize, AnswerWire<'_>)| StepAnswer {
        step: wire.step.into_owned(),
        visit: wire.visit,
        status: wire.status,
        headers: headers(at),
    };
    wire.into_iter().enumerate().map(answer).collect()
}

impl TryFrom<SlipWire<'_>> for Slip {
    type Error = DecodeError;

    fn try_from(wire: SlipWire<'_>) -> Result<Self, DecodeError> {
        let failure = wire.failure_code.map(|code| Failure {
            step: wire.failure_step.into_owned(),
            code: code.into_owned(),
            message: wire.failure_message.into_owned(),
            status: wire.failure_status,
            attempts: wire.failure_attempts,
        });
        let text = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        let carried = Carried {
            check_when: wire.check_when,
            run: wire.run.into_owned(),
            join: text(wire.join),
            item: wire.item,
            sequence: wire.sequence,
            input_ref: text(wire.input_ref),
            not_before_ms: wire.not_before_ms,
        };
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
            step: wire.step.into_owned(),
            phase: phase(&wire.phase)?,
            branch: wire.branch.into_owned(),
            hop: wire.hop,
            visit: wire.visit,
            attempt: wire.attempt,
            attempt_uncertain: wire.attempt_uncertain,
            input: wire.input.into_value(),
            done: wire.done.into_iter().map(Completed::from).collect(),
            failure,
            deadline_ms: wire.deadline_ms,
            priority: wire.priority,
            search: text(wire.missing).map(|missing| Search { looks: wire.looks, missing }),
            released: released(wire.released_by.as_deref(), wire.released_payload.map(Json::into_value))?,
            step_state: wire.step_state.map(Json::into_value),
            step_left_ms: wire.step_left_ms,
            visits: wire.visits.into_iter().map(|visits| (visits.step.into_owned(), visits.count)).collect(),
            requires: wire.requires.into_iter().map(Cow::into_owned).collect(),
            answers: answers(wire.answers, wire.answer_headers.map(Json::into_value)),
            carried,
        })
    }
}

fn released(by: Option<&str>, payload: Option<Value>) -> Result<Option<Released>, DecodeError> {
    let Some(by) = by else { return Ok(None) };
    let by = ReleasedBy::read(by).ok_or_else(|| DecodeError::field("released_by", by))?;
    Ok(Some(Released { by, payload }))
}

impl From<CompletedWire<'_>> for Completed {
    fn from(wire: CompletedWire<'_>) -> Self {
        Self {
            step: wire.step.into_owned(),
            visit: wire.visit,
            output: wire.output.map(Json::into_value),
            uncertain: wire.uncertain,
            undone: wire.undone,
            carried: CarriedStep {
                branch: wire.branch.into_owned(),
                sequence: wire.sequence,
                ended_at_ms: wire.ended_at_ms,
                error_code: wire.error_code.map(Cow::into_owned),
            },
        }
    }
}
