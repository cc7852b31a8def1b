//! The bodies of answers about a job (docs/contract.md, HTTP). Pure.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use events::time::rfc3339;
use flow::decide::code;
use flow::definition::Definition;
use flow::document::{self, Document, StoredDocument, described, linked};
use flow::event::{JobEvent, JobStatus};
use flow::id::JobId;
use flow::slip::Failure;
use flow::view::{Compensation, JobView, Reported, StepView};
use serde::Serialize;
use serde_json::{Map, Value, json};
use store::cancels::CancelWish;
use web::problem::{Kind, Problem};

/// `prefix`: the path of the public URL.
fn address(prefix: &str, job: JobId) -> String {
    format!("{prefix}/v1/jobs/{job}")
}

/// The address of a job's result.
pub(crate) fn result_address(prefix: &str, job: JobId) -> String {
    format!("{}/result", address(prefix, job))
}

/// The address of a document within a job's result.
pub(crate) fn document_address(prefix: &str, job: JobId, name: &str) -> String {
    format!("{}?document={name}", result_address(prefix, job))
}

/// The addresses of a job.
#[derive(Serialize)]
pub(crate) struct Links {
    #[serde(rename = "self")]
    job: String,
    events: String,
    result: String,
}

pub(crate) fn links(prefix: &str, job: JobId) -> Links {
    let address = address(prefix, job);
    Links { events: format!("{address}/events"), result: format!("{address}/result"), job: address }
}

/// The trace of a job, and a page that shows it.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) id: Option<String>,
    pub(crate) url: Option<String>,
}

/// The facts that a 202 states.
pub(crate) struct AcceptedInfo<'a> {
    /// The path of the public URL.
    pub(crate) prefix: &'a str,
    pub(crate) job: JobId,
    pub(crate) flow: &'a str,
    pub(crate) status: JobStatus,
    pub(crate) correlation_id: Option<&'a str>,
    pub(crate) trace: Trace,
    pub(crate) retry_of: Option<JobId>,
}

/// The body of a 202. Every request makes one, so it is written as it stands here.
#[derive(Serialize)]
struct Accepted<'a> {
    id: String,
    flow: &'a str,
    status: &'a str,
    correlation_id: Option<&'a str>,
    trace_id: Option<String>,
    links: Links,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<String>,
}

/// The answer 202: the job goes on by itself, and is found at `Location`.
pub(crate) fn accepted(info: AcceptedInfo<'_>, retry_after_s: u64) -> Response {
    let body = Accepted {
        id: info.job.to_string(),
        flow: info.flow,
        status: info.status.as_str(),
        correlation_id: info.correlation_id,
        trace_id: info.trace.id,
        links: links(info.prefix, info.job),
        trace_url: info.trace.url,
        retry_of: info.retry_of.map(|job| job.to_string()),
    };
    let location = HeaderValue::from_str(&body.links.job);
    let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
    if let Ok(location) = location {
        headers.insert(header::LOCATION, location);
    }
    response
}

/// The status body, with links below the public URL's path. Steps that have not come up yet are listed as pending where
/// the flow's version is known.
pub(crate) fn status(
    prefix: &str,
    view: &JobView,
    (trace, cancel): (&Trace, Option<&CancelWish>),
    definition: Option<&Definition>,
) -> Value {
    let progress = view.progress();
    let mut body = json!({
        "id": view.job.to_string(),
        "flow": view.flow,
        "version": view.version,
        "status": view.status.as_str(),
        "progress": { "done": progress.done, "total": progress.total, "percent": progress.percent },
        "created_at": rfc3339(view.accepted_at_ms),
        "updated_at": rfc3339(view.updated_at_ms),
        "steps": steps(view, definition),
        "correlation_id": view.correlation_id,
        "links": links(prefix, view.job),
    });
    if definition.is_some_and(Definition::is_sandbox) {
        body["sandbox"] = true.into();
    }
    if let Some(message) = view.message() {
        body["progress"]["message"] = message.into();
    }
    let mut put = |name: &str, value: Option<Value>| {
        if let (Some(value), Some(map)) = (value, body.as_object_mut()) {
            map.insert(name.to_owned(), value);
        }
    };
    put("trace_id", trace.id.as_deref().map(Value::from));
    put("trace_url", trace.url.as_deref().map(Value::from));
    put("retry_of", view.retry_of.map(|job| job.to_string().into()));
    put("compensation", view.compensation.as_ref().map(compensation));
    put("stuck_since", view.stuck_since_ms.map(|since_ms| rfc3339(since_ms).into()));
    put("result", view.result.as_ref().map(|result| shown(prefix, view.job, result)));
    put("error", view.error.as_ref().map(failure));
    put("cancel", cancel.map(wish));
    let too_late = cancel.is_some() && view.status == JobStatus::Succeeded;
    put("cancel_too_late", too_late.then_some(Value::Bool(true)));
    body
}

/// A result as JSON for those who want to see it: documents by their descriptions, and where they lie elsewhere with
/// the addresses of their bytes.
fn shown(prefix: &str, job: JobId, result: &Value) -> Value {
    let told = linked(result, &|name| document_address(prefix, job, name));
    let mut shown = described(told.as_ref().unwrap_or(result)).into_owned();
    if Document::of(result).is_some() || StoredDocument::of(result).is_some() {
        shown[document::KEY][document::HREF] = result_address(prefix, job).into();
    }
    shown
}

fn steps(view: &JobView, definition: Option<&Definition>) -> Vec<Value> {
    match definition {
        Some(definition) => view.steps_of(definition).iter().map(step).collect(),
        None => view.steps.iter().map(step).collect(),
    }
}

fn step(step: &StepView) -> Value {
    let mut body = Map::new();
    body.insert("id".to_owned(), step.id.as_str().into());
    body.insert("status".to_owned(), step.status.as_str().into());
    body.insert("attempts".to_owned(), step.attempts.into());
    let times = [
        ("started_at", step.started_at_ms),
        ("ended_at", step.ended_at_ms),
        ("next_attempt_at", step.next_attempt_at_ms),
    ];
    for (name, at_ms) in times {
        if let Some(at_ms) = at_ms {
            body.insert(name.to_owned(), rfc3339(at_ms).into());
        }
    }
    if let Some(running) = &step.running {
        body.insert("running".to_owned(), json!({ "worker": running.worker, "since": rfc3339(running.since_ms) }));
    }
    if let Some(waiting) = &step.waiting_for {
        let until = waiting.until_ms.map(rfc3339);
        let mut rest = json!({ "signal": waiting.signal, "until": until });
        for (name, downstream) in [("breaker", &waiting.breaker), ("limit", &waiting.limit), ("poll", &waiting.poll)] {
            if let Some(downstream) = downstream {
                rest[name] = downstream.as_str().into();
            }
        }
        body.insert("waiting_for".to_owned(), rest);
    }
    if let Some(Reported { percent, message }) = &step.reported {
        let mut progress = Map::new();
        progress.extend(percent.map(|percent| ("percent".to_owned(), percent.into())));
        progress.extend(message.as_deref().map(|message| ("message".to_owned(), message.into())));
        body.insert("progress".to_owned(), progress.into());
    }
    if let Some(by) = &step.decided_by {
        body.insert("decided_by".to_owned(), by.as_str().into());
    }
    if let Some(error) = step.undo_error.as_ref().or(step.error.as_ref()) {
        body.insert("error".to_owned(), error.clone());
    }
    Value::Object(body)
}

fn compensation(compensation: &Compensation) -> Value {
    json!({ "undone": compensation.undone, "stuck": compensation.stuck })
}

fn wish(wish: &CancelWish) -> Value {
    json!({ "requested_at": rfc3339(wish.at_ms), "by": wish.requested_by, "reason": wish.reason })
}

fn failure(failure: &Failure) -> Value {
    json!({
        "step": failure.step,
        "code": failure.code,
        "message": failure.message,
        "status": failure.status,
        "attempts": failure.attempts,
    })
}

/// One event as `GET /v1/jobs/{id}/events` lists it.
pub(crate) fn event(cursor: i64, event: &JobEvent) -> Value {
    let mut body = json!({
        "cursor": cursor.to_string(),
        "type": event.kind.as_str(),
        "at": rfc3339(event.at_ms),
        "status": event.status.as_str(),
    });
    let mut put = |name: &str, value: Option<Value>| {
        if let (Some(value), Some(map)) = (value, body.as_object_mut()) {
            map.insert(name.to_owned(), value);
        }
    };
    put("step", event.step.as_deref().map(Value::from));
    if event.step.is_some() {
        put("phase", Some(event.phase.as_str().into()));
        put("visit", Some(event.visit.into()));
        put("attempts", Some(event.attempts.into()));
    }
    put("next_attempt_after_ms", event.next_attempt_after_ms.map(Value::from));
    put("reason", event.reason.as_ref().map(|reason| reason.as_str().into()));
    put("signal", event.signal.as_deref().map(Value::from));
    put("actor", event.actor.as_deref().map(Value::from));
    put("data", event.data.as_ref().map(|data| described(data).into_owned()));
    body
}

/// The result of a job that did not succeed: 409 cancelled, 504 past its deadline, else 502, or the
/// failing step's own 4xx where the step says `expose: true`.
pub(crate) fn failed(view: &JobView, trace_id: Option<&str>, definition: Option<&Definition>) -> Problem {
    let failure = view.error.as_ref();
    let code = failure.map_or(code::STEP_FAILED, |failure| failure.code.as_str());
    let kind = match (view.status, code) {
        (JobStatus::Cancelled, _) | (_, code::CANCELLED) => Kind::Cancelled,
        (_, code::DEADLINE_EXCEEDED) => Kind::DeadlineExceeded,
        (_, _) => Kind::StepFailed,
    };
    let detail = failure.map_or_else(|| "The job failed.".to_owned(), |failure| failure.message.clone());
    let mut problem = Problem::new(kind, detail).with_job(view.job).with("code", code);
    if let Some(trace_id) = trace_id {
        problem = problem.with_trace_id(trace_id);
    }
    if let Some(failure) = failure {
        problem = problem.with("step", failure.step.as_str()).with("attempts", failure.attempts);
        if let Some(status) = exposed(failure, definition) {
            problem = problem.with_status(status);
        }
    }
    let undone = view.compensation.as_ref().map(|compensation| compensation.undone.clone()).unwrap_or_default();
    problem.with("undone", undone)
}

fn exposed(failure: &Failure, definition: Option<&Definition>) -> Option<StatusCode> {
    let step = definition?.step(&failure.step)?;
    let status = failure.status.filter(|status| step.exposes(*status))?;
    StatusCode::from_u16(status).ok()
}
