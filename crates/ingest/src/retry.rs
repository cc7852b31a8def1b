//! `POST /v1/jobs/{id}/retry`: a parked job goes on from where it stopped, one that waits for a time goes on now, a
//! finished one starts anew as another job.
//!
//! A retry may carry a verdict: the caller's word on how a step of unknown outcome has ended, or that a step was undone
//! by hand.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use documents::Owner;
use flow::decide::{Said, Verdict, can_be_ruled};
use flow::document::StoredDocument;
use flow::event::JobStatus;
use flow::id::JobId;
use flow::view::JobView;
use serde_json::Value;
use store::webhooks::of_job;
use web::caller::Scope;
use web::context::{CORRELATION_ID, RequestContext};
use web::problem::{Kind, Problem};

use crate::in_time::{STORE_TIMEOUT, in_time, unanswered};
use crate::job_lookup::{JobState, find, stored};
use crate::plan::JobRequest;
use crate::request_parts::{idempotency_key, parse_body, unreadable};
use crate::resume::{self, Order};
use crate::signal::PAYLOAD_BYTES_MAX;
use crate::state::Api;
use crate::submit::store_job;
use crate::{cancel, content, status, under_way};

/// `POST /v1/jobs/{id}/retry`
pub(crate) async fn retry(
    State(api): State<Arc<Api>>,
    Path(job): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    let job = find(&api, &context.caller, &job).await?;
    let said = said(&headers, &body).map_err(|problem| problem.with_job(job.view.job))?;
    let by = context.caller.subject.clone();
    let order = Order { key: idempotency_key(&headers, false)?, verdict: said.map(|said| Verdict { said, by }) };
    // A repetition gets the first answer, whatever has become of the job since.
    if order.is_repeated(&api, &context, &job.view).await? {
        return Ok(resume::replayed(&api, job));
    }
    status::precondition(&headers, &job)?;
    if let Some(verdict) = &order.verdict {
        return rule(&api, job, &context, (&order, verdict)).await;
    }
    one(&api, job, context, (&headers, &order)).await
}

/// Sends the job on, or starts it anew.
pub(crate) async fn one(
    api: &Api,
    job: JobState,
    context: RequestContext,
    (headers, order): (&HeaderMap, &Order),
) -> Result<Response, Problem> {
    match job.view.status {
        JobStatus::NeedsAttention => resume::all(api, job, &context, order).await,
        // The status says why it waits: for another attempt, or for what is missing.
        JobStatus::Waiting | JobStatus::Compensating if !job.view.waiting.is_empty() => {
            resume::all(api, job, &context, order).await
        }
        JobStatus::Succeeded | JobStatus::Failed | JobStatus::Cancelled => {
            start_anew(api, &job.view, context, headers).await
        }
        JobStatus::Accepted
        | JobStatus::Running
        | JobStatus::Waiting
        | JobStatus::Compensating
        | JobStatus::Other(_) => Err(under_way::still_running(&job.view)),
    }
}

/// The end of a step, as the body says; none without a body.
fn said(headers: &HeaderMap, body: &Bytes) -> Result<Option<Said>, Problem> {
    if body.is_empty() {
        return Ok(None);
    }
    if body.len() > PAYLOAD_BYTES_MAX {
        let detail = format!("The body has {} bytes of at most {PAYLOAD_BYTES_MAX}.", body.len());
        return Err(Problem::new(Kind::PayloadTooLarge, detail));
    }
    let form = "The body is `{}`, `{\"outcome\": \"succeeded\", \"output\": ...}`, `{\"outcome\": \"failed\"}` or \
                `{\"outcome\": \"undone\", \"reason\": \"...\"}`";
    let wrong = |why: String| Problem::new(Kind::BadRequest, format!("{form}: {why}."));
    let mut body = parse_body(headers, body)?;
    let Some(members) = body.as_object_mut() else { return Err(wrong("it is no object".to_owned())) };
    let (outcome, output, reason) = (members.remove("outcome"), members.remove("output"), members.remove("reason"));
    if let Some(other) = members.keys().next() {
        return Err(wrong(format!("there is no `{other}`")));
    }
    let outcome = outcome.as_ref().map(Value::as_str);
    if reason.is_some() && outcome != Some(Some("undone")) {
        return Err(wrong("a `reason` is given for `undone`".to_owned()));
    }
    match (outcome, output) {
        (None, None) => Ok(None),
        (Some(Some("succeeded")), output) => Ok(Some(Said::Succeeded(output.unwrap_or_default()))),
        (Some(Some("failed")), None) => Ok(Some(Said::Failed)),
        (Some(Some("undone")), None) => {
            let Some(Value::String(reason)) = reason else { return Err(wrong("`reason` is a text".to_owned())) };
            let reason = cancel::checked(Some(reason))?.ok_or_else(|| wrong("`reason` is empty".to_owned()))?;
            Ok(Some(Said::Undone(reason)))
        }
        (Some(Some("failed" | "undone")), Some(_)) => {
            Err(wrong("only a step that succeeded has an `output`".to_owned()))
        }
        (None, Some(_)) => Err(wrong("`outcome` is missing".to_owned())),
        (Some(_), _) => Err(wrong("`outcome` is `succeeded`, `failed` or `undone`".to_owned())),
    }
}

/// Signals the orchestrator how the step has ended that the job is parked at.
async fn rule(
    api: &Api,
    job: JobState,
    context: &RequestContext,
    (order, verdict): (&Order, &Verdict),
) -> Result<Response, Problem> {
    context.caller.require(Scope::Operate)?;
    let known = |why: &str| Problem::new(Kind::OutcomeKnown, why).with_job(job.view.job);
    if job.view.status != JobStatus::NeedsAttention {
        return Err(known(&format!("The job is {}: it is not parked.", job.view.status.as_str())));
    }
    for token in &job.view.parked {
        if resume::is_sent_on(api, &job.view, token).await? {
            return Err(known("The job is being sent on already, by a retry that says nothing of its step's end."));
        }
    }
    let mut open = Vec::new();
    let slips = resume::parked_slips(api, &job.view).await?.ok_or_else(|| resume::not_at_rest(&job.view))?;
    for (token, slip) in slips {
        match slip {
            Ok(slip) if can_be_ruled(&slip, &verdict.said) => open.push(token),
            Ok(_) => {}
            Err(why) => return Err(known(&format!("The job's slip cannot be read by this version: {why}."))),
        }
    }
    if open.is_empty() {
        let step = job.view.error.as_ref().map(|error| error.step.as_str()).unwrap_or_default();
        let why = match (&verdict.said, &job.view.compensation) {
            (Said::Undone(_), _) => format!("The job is parked at `{step}`, which is not being undone."),
            (Said::Succeeded(_) | Said::Failed, Some(_)) => {
                format!("The job is parked as `{step}` is undone: say `undone` once that was done by hand.")
            }
            (Said::Succeeded(_) | Said::Failed, None) => {
                format!("The job is parked at `{step}`, and it is known how that has ended.")
            }
        };
        return Err(known(&why));
    }
    resume::send(api, job, context, &open, order).await
}

/// Another job with the same input, ordering key and webhook, of the flow's active version.
async fn start_anew(
    api: &Api,
    view: &JobView,
    context: RequestContext,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let Some(definition) = api.catalog.active(&view.flow) else {
        return Err(Problem::new(Kind::UnknownFlow, api.catalog.no_such_flow(&view.flow)).with_job(view.job));
    };
    let idempotency_key = idempotency_key(headers, api.config.idempotency_key_required)?;
    let Some(first) = stored(api, &context.caller, view.job).await?.and_then(|stored| stored.acceptance) else {
        return Err(Problem::new(Kind::Gone, "The job's input is no longer kept.").with_job(view.job));
    };
    let now_ms = api.clock.now_ms();
    let webhook = in_time(STORE_TIMEOUT, of_job(&api.pool, view.job), unanswered).await?;
    let (job, tenant) = (JobId::new(api.ids.uuid_v7(now_ms)), first.facts.tenant);
    let input: Value = serde_json::from_slice(&first.input).map_err(Problem::internal)?;
    hand_over(api, &input, (&tenant, view.job), job).await?;
    let request = JobRequest {
        job,
        tenant,
        submitted_by: context.caller.subject.clone(),
        input,
        // A job whose flow has no key has its own id for one, and so does the new one.
        fallback_key: (first.facts.key != view.job.to_string()).then_some(first.facts.key),
        idempotency_key,
        correlation_id: match headers.contains_key(CORRELATION_ID) {
            true => context.correlation_id,
            false => first.facts.correlation_id,
        },
        trace: context.trace,
        now_ms,
        retry_of: Some(view.job),
        start_after_ms: None,
        start: None,
        webhook,
    };
    let stored = store_job(api, &context.caller, &definition, request).await?;
    Ok(stored.answer(api, &context.caller))
}

/// Gives the document that is a job's input to another job: each has its own.
async fn hand_over(api: &Api, input: &Value, (tenant, from): (&str, JobId), to: JobId) -> Result<(), Problem> {
    let Some(document) = StoredDocument::of(input) else { return Ok(()) };
    let (from, to) = (Owner { tenant, job: from }, Owner { tenant, job: to });
    api.documents()?.copy(&document, from, to).await.map_err(|error| content::no_document(error).with_job(from.job))
}
