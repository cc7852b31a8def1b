//! `POST /v1/callbacks/{permit}`: a service tells how the work of a step has ended that it had accepted.
//!
//! The permit certifies itself, so this works before anything about it is stored: also before the service has answered
//! the call that told it where to call back. The callback is a signal, and meets the hold that waits for it, whichever
//! comes first. One round of a step has one callback: the first that is stored counts, and all get the same answer.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use events::wait::{Signal, Wait};
use flow::callback::{Permit, Purpose};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{outbox, signals};
use web::caller::Caller;
use web::context::RequestContext;
use web::problem::{Kind, Problem};
use web::request_log::JobInfo;

use crate::in_time::{STORE_TIMEOUT, in_time};
use crate::job_lookup::find;
use crate::request_parts::{media_type, parse_body, unreadable};
use crate::signal::PAYLOAD_BYTES_MAX;
use crate::state::Api;
use crate::stored::IDEMPOTENT_REPLAYED;

/// Callbacks of one round are one signal.
const ID: &str = "callback";
const PROBLEM_JSON: &str = "application/problem+json";

/// The query of a callback.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Told {
    /// The outcome; without it that of the body: a problem is a failure.
    outcome: Option<Word>,
    /// True if another attempt may help.
    retryable: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Done,
    Failed,
}

/// `POST` or `PUT /v1/callbacks/{permit}`
pub(crate) async fn call_back(
    State(api): State<Arc<Api>>,
    Path(text): Path<String>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<Told>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let permit = permit(&api, Purpose::Callback, &text)?;
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    let Query(told) = query.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))?;
    let payload = payload(&told, &headers, &body).map_err(|problem| problem.with_job(permit.job))?;
    let (name, at_ms) = (permit.signal(), api.clock.now_ms());
    // One round has one callback, so that their number is bounded by the flow.
    let look = || signals::look(&api.pool, permit.job, &name, ID, 0);
    let known = in_time(STORE_TIMEOUT, look(), || unavailable(&permit)).await?;
    let flow = match known.same {
        Some(_) => None,
        None => open_flow(&api, &permit, Purpose::Callback).await?,
    };
    if known.same.is_none() {
        let (job, tenant, id) = (permit.job, permit.tenant.clone(), ID.to_owned());
        let signal = Signal { job, tenant, name: name.clone(), id, payload: Some(payload), at_ms };
        store(&api, signal, &permit, &context).await?;
    }
    metrics::counter!("meanwhile_callbacks_total", "outcome" => told.outcome_word(&headers)).increment(1);
    Ok(taken(&permit, flow, known.same.is_some()))
}

/// What the text certifies, if it is of any use.
pub(crate) fn permit(api: &Api, purpose: Purpose, text: &str) -> Result<Permit, Problem> {
    if api.callback_secrets.is_empty() {
        let detail = "Nothing is configured here by which such addresses are known (`callbacks.secrets`).";
        return Err(Problem::new(Kind::NotReady, detail).retry_after_s(30));
    }
    let now_ms = api.clock.now_ms();
    api.callback_secrets
        .verify(purpose, text)
        .filter(|permit| permit.end_ms > now_ms)
        .ok_or_else(|| Problem::new(unknown(purpose), "This is no address that a step was given, or it is too old."))
}

const fn unknown(purpose: Purpose) -> Kind {
    match purpose {
        Purpose::Callback => Kind::UnknownCallback,
        Purpose::Progress => Kind::UnknownProgress,
    }
}

/// What the worker reads: `{outcome: done|failed|retry, body?, problem?}`.
fn payload(told: &Told, headers: &HeaderMap, body: &Bytes) -> Result<Value, Problem> {
    if body.len() > PAYLOAD_BYTES_MAX {
        let detail = format!("The body of a callback has {} bytes of at most {PAYLOAD_BYTES_MAX}.", body.len());
        return Err(Problem::new(Kind::PayloadTooLarge, detail));
    }
    let body = if body.is_empty() { Value::Null } else { parse_body(headers, body)? };
    if told.word(headers) == Word::Done {
        return Ok(json!({ "outcome": "done", "body": body }));
    }
    let retryable = told.retryable.or_else(|| body.get("retryable")?.as_bool()).unwrap_or(false);
    Ok(json!({ "outcome": if retryable { "retry" } else { "failed" }, "problem": body }))
}

impl Told {
    fn word(&self, headers: &HeaderMap) -> Word {
        let is_problem =
            media_type(headers).split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(PROBLEM_JSON);
        self.outcome.unwrap_or(if is_problem { Word::Failed } else { Word::Done })
    }

    fn outcome_word(&self, headers: &HeaderMap) -> &'static str {
        match self.word(headers) {
            Word::Done => "done",
            Word::Failed => "failed",
        }
    }
}

/// The flow of a job that has not ended, as far as it is known here. What is not known now does not turn a callback
/// away: it is stored, and without effect if nothing waits for it. A report of progress is shown nowhere then.
pub(crate) async fn open_flow(api: &Api, permit: &Permit, purpose: Purpose) -> Result<Option<String>, Problem> {
    let caller = Caller::unrestricted(&permit.tenant);
    match find(api, &caller, &permit.job.to_string()).await {
        Ok(job) if job.view.status.is_final() => {
            let detail = format!("The job has {}: nothing waits for this.", job.view.status.as_str());
            Err(Problem::new(Kind::AlreadyFinished, detail).with_job(permit.job))
        }
        Ok(job) => Ok(Some(job.view.flow.clone())),
        Err(problem) if problem.kind() == Kind::UnknownJob => {
            Err(Problem::new(unknown(purpose), "The job of this address is no longer known."))
        }
        Err(_) => Ok(None),
    }
}

async fn store(api: &Api, signal: Signal, permit: &Permit, context: &RequestContext) -> Result<(), Problem> {
    let record = api.planner()?.writer.wait(&Wait::Signal(signal), &context.trace).map_err(Problem::internal)?;
    in_time(STORE_TIMEOUT, outbox::send(&api.pool, &[record]), || unavailable(permit)).await
}

fn unavailable(permit: &Permit) -> Problem {
    let detail =
        "The database did not answer, so it is not certain that the callback was stored. Calling again is safe.";
    Problem::new(Kind::NotReady, detail).with_job(permit.job).retry_after_s(1)
}

fn taken(permit: &Permit, flow: Option<String>, replayed: bool) -> Response {
    let body = json!({ "job": permit.job.to_string(), "step": permit.step });
    let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
    if replayed {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    if let Some(flow) = flow {
        let (id, tenant) = (permit.job.to_string(), permit.tenant.clone());
        response.extensions_mut().insert(JobInfo { id, flow, tenant });
    }
    response
}
