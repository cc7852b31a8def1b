//! `POST /v1/jobs/{id}/retry`: a parked job goes on from where it stopped, one that waits for a time goes on now, a
//! finished one starts anew as another job.
//!
//! The orchestrator owns the token of a job at rest. This file only puts a `resume` signal into the outbox. The signal
//! names the token by its hop, so a repeated or late one has no effect.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use events::wait::{Resume, Wait};
use events::{EncodeError, Record};
use flow::event::JobStatus;
use flow::id::JobId;
use flow::view::JobView;
use store::outbox;
use web::caller::Scope;
use web::context::{CORRELATION_ID, RequestContext};
use web::problem::{Kind, Problem};

use crate::in_time::{STORE_TIMEOUT, in_time};
use crate::job_lookup::{JobState, as_it_was, find, stored};
use crate::plan::JobRequest;
use crate::state::Api;
use crate::submit::{idempotency_key, store_job};

/// `POST /v1/jobs/{id}/retry`
pub(crate) async fn retry(
    State(api): State<Arc<Api>>,
    Path(job): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = find(&api, &context.caller, &job).await?;
    match job.view.status {
        JobStatus::NeedsAttention => resume(&api, job, &context).await,
        // The status says why it waits: for another attempt, or for what is missing.
        JobStatus::Waiting | JobStatus::Compensating if !job.view.waiting.is_empty() => {
            resume(&api, job, &context).await
        }
        JobStatus::Succeeded | JobStatus::Failed | JobStatus::Cancelled => {
            start_anew(&api, &job.view, context, &headers).await
        }
        status @ (JobStatus::Accepted
        | JobStatus::Running
        | JobStatus::Waiting
        | JobStatus::Compensating
        | JobStatus::Other(_)) => {
            let detail =
                format!("The job is {}: it has not ended, is not parked, and waits for no time.", status.as_str());
            Err(Problem::new(Kind::StillRunning, detail).with_job(job.view.job))
        }
    }
}

/// Signals the orchestrator to resume every token of the job that rests.
pub(crate) async fn resume(api: &Api, job: JobState, context: &RequestContext) -> Result<Response, Problem> {
    context.caller.require(Scope::Operate)?;
    let records = signals(api, &job.view, context)?;
    let unavailable = || {
        let detail = "The database did not answer, so it is not certain that the job goes on. Asking again is safe.";
        Problem::new(Kind::NotReady, detail).with_job(job.view.job).retry_after_s(1)
    };
    in_time(STORE_TIMEOUT, outbox::send(&api.pool, &records), unavailable).await?;
    Ok(as_it_was(api, job))
}

fn signals(api: &Api, view: &JobView, context: &RequestContext) -> Result<Vec<Record>, Problem> {
    let (planner, at_ms) = (api.planner()?, api.clock.now_ms());
    let signals: Result<Vec<Record>, EncodeError> = view
        .parked
        .iter()
        .chain(&view.waiting)
        .map(|token| {
            let resume = Resume { token: token.clone(), tenant: view.tenant.clone(), at_ms };
            planner.writer.wait(&Wait::Signal(resume.into()), &context.trace)
        })
        .collect();
    signals.map_err(Problem::internal)
}

/// Another job with the same input and ordering key, of the flow's active version.
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
    let request = JobRequest {
        job: JobId::new(api.ids.uuid_v7(now_ms)),
        tenant: first.facts.tenant,
        input: serde_json::from_slice(&first.input).map_err(Problem::internal)?,
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
    };
    let stored = store_job(api, &context.caller, &definition, request).await?;
    Ok(stored.answer(api, &context.caller))
}
