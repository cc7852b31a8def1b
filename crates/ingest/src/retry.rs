//! `POST /v1/jobs/{id}/retry`: a parked job goes on from where it stopped, a finished one starts anew as another job.
//!
//! The token of a parked job is the orchestrator's. All that leaves here is an operator's word, through the outbox,
//! that names the token by its hop: given twice, or too late, it means nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use events::wait::{Resume, Wait};
use events::{EncodeError, Record, wait_record};
use flow::event::JobStatus;
use flow::id::JobId;
use flow::view::JobView;
use serde_json::json;
use service_kit::problem::{Kind, Problem};
use store::outbox;

use crate::answer;
use crate::context::{CORRELATION_ID, RequestContext};
use crate::plan::Asked;
use crate::state::Api;
use crate::status::{Known, find, stored};
use crate::submit::{accept_job, idempotency_key};

/// How long Postgres may take to store a word.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// `POST /v1/jobs/{id}/retry`
pub(crate) async fn retry(
    State(api): State<Arc<Api>>,
    Path(job): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let known = find(&api, &job).await?;
    match known.view.status {
        JobStatus::NeedsAttention => resume(&api, known, &context).await,
        JobStatus::Succeeded | JobStatus::Failed | JobStatus::Cancelled => {
            start_anew(&api, &known.view, context, &headers).await
        }
        status @ (JobStatus::Accepted | JobStatus::Running | JobStatus::Waiting | JobStatus::Compensating) => {
            let detail = format!("The job is {}: it has neither ended nor is it parked.", status.as_str());
            Err(Problem::new(Kind::StillRunning, detail).with_job(known.view.job))
        }
    }
}

/// Gives the orchestrator the word for every token that is parked.
async fn resume(api: &Api, known: Known, context: &RequestContext) -> Result<Response, Problem> {
    let records = words(api, &known.view, context)?;
    let storing = async {
        let mut tx = api.pool.begin().await?;
        outbox::append(&mut tx, &records).await?;
        tx.commit().await
    };
    let unavailable = || {
        let detail = "The database did not answer, so it is not certain that the job goes on. Asking again is safe.";
        Problem::new(Kind::NotReady, detail).with_job(known.view.job).retry_after_s(1)
    };
    match tokio::time::timeout(STORE_TIMEOUT, storing).await {
        Ok(stored) => stored.map_err(|error| unavailable().caused_by(error))?,
        Err(_) => return Err(unavailable()),
    }
    Ok(resumed(api, &known))
}

fn words(api: &Api, view: &JobView, context: &RequestContext) -> Result<Vec<Record>, Problem> {
    let (planner, at_ms) = (api.planner()?, api.clock.now_ms());
    let words: Result<Vec<Record>, EncodeError> = view
        .parked
        .iter()
        .map(|parked| {
            let (branch, hop) = (parked.branch.clone(), parked.hop);
            let resume = Resume { job: view.job, tenant: view.tenant.clone(), branch, hop, at_ms };
            wait_record(&planner.topics, &planner.writers, &Wait::Signal(resume.into()), &context.trace)
        })
        .collect();
    words.map_err(Problem::internal)
}

/// The job is told as it was seen: that it goes on is for its events to say.
fn resumed(api: &Api, Known { view, trace_id, .. }: &Known) -> Response {
    let body = json!({
        "id": view.job.to_string(),
        "flow": view.flow,
        "status": view.status.as_str(),
        "correlation_id": view.correlation_id,
        "trace_id": trace_id,
        "links": answer::links(view.job),
    });
    let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(api.config.retry_after_s));
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/jobs/{}", view.job)) {
        headers.insert(header::LOCATION, location);
    }
    response
}

/// Another job with the same input and ordering key, of the flow's active version.
async fn start_anew(
    api: &Arc<Api>,
    view: &JobView,
    context: RequestContext,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let Some(definition) = api.catalog.active(&view.flow) else {
        return Err(Problem::new(Kind::UnknownFlow, api.catalog.no_such_flow(&view.flow)).with_job(view.job));
    };
    let idempotency_key = idempotency_key(headers, api.config.idempotency_key_required)?;
    let Some(first) = stored(api, view.job).await?.and_then(|stored| stored.acceptance) else {
        return Err(Problem::new(Kind::Gone, "The job's input is no longer kept.").with_job(view.job));
    };
    let now_ms = api.clock.now_ms();
    let asked = Asked {
        job: JobId::new(api.ids.uuid_v7(now_ms)),
        tenant: first.tenant,
        input: serde_json::from_slice(&first.input).map_err(Problem::internal)?,
        // A job whose flow has no key has its own id for one, and so does the new one.
        fallback_key: (first.key != view.job.to_string()).then_some(first.key),
        idempotency_key,
        correlation_id: match headers.contains_key(CORRELATION_ID) {
            true => context.correlation_id,
            false => first.correlation_id,
        },
        trace: context.trace,
        now_ms,
        retry_of: Some(view.job),
    };
    accept_job(api, &definition, asked).await
}
