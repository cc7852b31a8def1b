//! `POST /v1/jobs/{id}/signals/{name}`: a message to a job, for which one of its steps waits, or will.
//!
//! The signal goes through the outbox to `meanwhile.waits`, where it meets the hold that waits for it, whichever comes
//! first. Nothing here waits for that.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use events::wait::{Signal, Wait};
use flow::definition::Definition;
use flow::id::JobId;
use serde_json::{Value, json};
use store::{outbox, signals};
use web::caller::Scope;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::in_time::{STORE_TIMEOUT, in_time};
use crate::job_lookup::{JobState, find};
use crate::request_parts::{idempotency_key, parse_body, unreadable};
use crate::state::Api;
use crate::stored::IDEMPOTENT_REPLAYED;
use crate::stored::as_it_was;
use crate::violations::violations;

/// Bytes of a payload: it travels in a header and with the slip.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Signals of one job that nothing has used yet.
const UNUSED_MAX: u32 = 1_000;

/// The name of that limit in answers.
const POLICY: &str = "signals";

/// `POST /v1/jobs/{id}/signals/{name}`
pub(crate) async fn send(
    State(api): State<Arc<Api>>,
    Path((job, name)): Path<(String, String)>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    let job = find(&api, &context.caller, &job).await?;
    context.caller.require(Scope::JobsSubmit)?;
    let key = idempotency_key(&headers, false)?;
    let payload = payload(&headers, &body).map_err(|problem| problem.with_job(job.view.job))?;
    // A repetition gets the first answer also where that signal has ended the job.
    if let Some(key) = &key
        && is_repeated(&api, &job, (&name, key), payload.as_ref()).await?
    {
        return Ok(accepted(&api, job, true));
    }
    if job.view.status.is_final() {
        let detail = format!("The job has {}: it takes no signals.", job.view.status.as_str());
        return Err(Problem::new(Kind::AlreadyFinished, detail).with_job(job.view.job));
    }
    let definition = api.catalog.version(&job.view.flow, &job.view.version);
    check(definition.as_ref(), &name, payload.as_ref()).map_err(|problem| problem.with_job(job.view.job))?;
    let id = key.unwrap_or_else(|| api.ids.uuid().to_string());
    let at_ms = api.clock.now_ms();
    let signal = Signal { job: job.view.job, tenant: job.view.tenant.clone(), name, id, payload, at_ms };
    store(&api, signal, &context).await?;
    Ok(accepted(&api, job, false))
}

/// True if the same signal was taken in before, the problem 422 if another one was under its key.
async fn is_repeated(
    api: &Api,
    job: &JobState,
    (name, key): (&str, &str),
    payload: Option<&Value>,
) -> Result<bool, Problem> {
    if name.contains('\0') {
        return Ok(false);
    }
    let looking = signals::look(&api.pool, job.view.job, name, key, 0);
    let unavailable = || {
        let detail = "The database did not answer. Sending the signal again with the same Idempotency-Key is safe.";
        Problem::new(Kind::NotReady, detail).with_job(job.view.job).retry_after_s(1)
    };
    match in_time(STORE_TIMEOUT, looking, unavailable).await?.same {
        None => Ok(false),
        Some(first) if is_same(first.as_deref(), payload) => Ok(true),
        Some(_) => {
            let detail = "This Idempotency-Key was used before, for a signal with another payload.";
            Err(Problem::new(Kind::IdempotencyKeyReused, detail).with_job(job.view.job))
        }
    }
}

/// None without a body.
fn payload(headers: &HeaderMap, body: &Bytes) -> Result<Option<Value>, Problem> {
    if body.is_empty() {
        return Ok(None);
    }
    if body.len() > PAYLOAD_BYTES_MAX {
        let detail = format!("A signal's payload has {} bytes of at most {PAYLOAD_BYTES_MAX}.", body.len());
        return Err(Problem::new(Kind::PayloadTooLarge, detail));
    }
    parse_body(headers, body).map(Some)
}

/// A signal must be one that a step of the job's flow waits for, with a payload that fits one of them. Where this
/// process does not know the flow's version, that cannot be told.
fn check(definition: Option<&Definition>, name: &str, payload: Option<&Value>) -> Result<(), Problem> {
    let Some(definition) = definition else {
        let detail = "The flow's version that the job runs is not known here yet.";
        return Err(Problem::new(Kind::NotReady, detail).retry_after_s(1));
    };
    let waits = definition.steps().iter().filter_map(|step| step.wait());
    let mut errors = None;
    for wait in waits.clone().filter(|wait| wait.signal == name) {
        let found = wait.validate(payload.unwrap_or(&Value::Null));
        if found.is_empty() {
            return Ok(());
        }
        errors.get_or_insert(found);
    }
    match errors {
        Some(errors) => Err(violations("The payload", errors)),
        None => {
            let mut known: Vec<String> = waits.map(|wait| format!("`{}`", wait.signal)).collect();
            known.dedup();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let detail = format!("No step of the flow waits for `{name}`. Its signals: {known}.");
            Err(Problem::new(Kind::UnknownSignal, detail))
        }
    }
}

/// Stores a signal. One that comes a second time before the first is taken in is stored again: the first counts.
async fn store(api: &Api, signal: Signal, context: &RequestContext) -> Result<(), Problem> {
    let job = signal.job;
    let record =
        api.planner()?.writer.wait(&Wait::Signal(signal.clone()), &context.trace).map_err(Problem::internal)?;
    let storing = async {
        let known = signals::look(&api.pool, job, &signal.name, &signal.id, UNUSED_MAX).await?;
        let has_room = known.unused < u64::from(UNUSED_MAX);
        if has_room {
            outbox::send(&api.pool, &[record]).await?;
        }
        Ok::<_, store::Error>(has_room)
    };
    let unavailable = || {
        let detail = "The database did not answer, so it is not certain that the signal was stored. Sending it again \
                      with the same Idempotency-Key is safe.";
        Problem::new(Kind::NotReady, detail).with_job(job).retry_after_s(1)
    };
    if in_time(STORE_TIMEOUT, storing, unavailable).await? { Ok(()) } else { Err(over_quota(job)) }
}

fn over_quota(job: JobId) -> Problem {
    let detail = format!("The job has {UNUSED_MAX} signals already that nothing has used yet.");
    let remediation = "Send no more until its steps have used some, one each; its status tells what it waits for. \
                       Signals that no step waits for any more are dropped with the job.";
    let problem = Problem::new(Kind::QuotaExceeded, detail).with_remediation(remediation).with_job(job);
    problem.with("violated-policies", json!([POLICY])).retry_after_s(60)
}

fn is_same(first: Option<&[u8]>, second: Option<&Value>) -> bool {
    first.and_then(|first| serde_json::from_slice::<Value>(first).ok()).as_ref() == second
}

fn accepted(api: &Api, job: JobState, replayed: bool) -> Response {
    let mut response = as_it_was(api, job);
    if replayed {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}
