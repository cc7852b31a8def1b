//! `DELETE /v1/jobs/{id}`: somebody wants the job cancelled.
//!
//! Workers and the keeper of holds heed it. This file puts a cancel for the workers, and a signal for the holds, into
//! the outbox, in one transaction: the signal goes the way of the job's holds, so that the two meet in order.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use events::cancel::Cancel;
use events::wait::Wait;
use flow::event::JobStatus;
use serde::Deserialize;
use store::cancels::CancelWish;
use store::outbox;
use web::caller::Scope;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::body::object;
use crate::in_time::{STORE_TIMEOUT, in_time};
use crate::job_lookup::{JobState, find};
use crate::request_parts::unreadable;
use crate::state::Api;
use crate::status;
use crate::stored::as_it_was;

/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1_000;

/// The words of the caller, in the query or in the body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    reason: Option<String>,
}

/// `DELETE /v1/jobs/{id}`
pub(crate) async fn cancel(
    State(api): State<Arc<Api>>,
    Path(job): Path<String>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<Order>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    let job = find(&api, &context.caller, &job).await?;
    context.caller.require(Scope::JobsCancel)?;
    let Query(query) = query.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))?;
    let reason = reason(query, &headers, &body).map_err(|problem| problem.with_job(job.view.job))?;
    one(&api, job, reason, &context).await
}

/// True if the job is being undone for another reason: a cancel would change nothing, and is not kept.
pub(crate) fn is_too_late(job: &JobState) -> bool {
    job.cancel.is_none() && job.view.compensation.is_some() && !job.view.status.is_final()
}

/// The job is to be cancelled, unless it is already, or has ended otherwise.
pub(crate) async fn one(
    api: &Api,
    job: JobState,
    reason: Option<String>,
    context: &RequestContext,
) -> Result<Response, Problem> {
    match job.view.status {
        JobStatus::Cancelled => Ok(Json(status::document(api, &job, None)).into_response()),
        JobStatus::Succeeded | JobStatus::Failed => {
            let detail = format!("The job has {}: it cannot be cancelled any more.", job.view.status.as_str());
            Err(Problem::new(Kind::AlreadyFinished, detail).with_job(job.view.job))
        }
        _ if is_too_late(&job) => {
            let mut document = status::document(api, &job, None);
            document["cancel_too_late"] = true.into();
            Ok(Json(document).into_response())
        }
        // Asked for already.
        _ if job.cancel.is_some() => Ok(as_it_was(api, job)),
        JobStatus::Accepted
        | JobStatus::Running
        | JobStatus::Waiting
        | JobStatus::Compensating
        | JobStatus::NeedsAttention
        | JobStatus::Other(_) => {
            store(api, &job, reason, context).await?;
            Ok(as_it_was(api, job))
        }
    }
}

/// Postgres' text takes no zero characters, and a reason is one line.
fn reason(query: Order, headers: &HeaderMap, body: &Bytes) -> Result<Option<String>, Problem> {
    let order = match body.is_empty() {
        true => query,
        false => object(headers, body, "The body is `{\"reason\": \"...\"}`")?,
    };
    checked(order.reason)
}

/// The reason as it is kept, or the problem 400.
pub(crate) fn checked(reason: Option<String>) -> Result<Option<String>, Problem> {
    let Some(reason) = reason else { return Ok(None) };
    if reason.len() > REASON_BYTES_MAX {
        let detail = format!("`reason` has {} bytes of at most {REASON_BYTES_MAX}.", reason.len());
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    let plain: String = reason.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    Ok(Some(plain.trim().to_owned()).filter(|reason| !reason.is_empty()))
}

async fn store(api: &Api, job: &JobState, reason: Option<String>, context: &RequestContext) -> Result<(), Problem> {
    let job_id = job.view.job;
    let cancel = Cancel {
        job: job_id,
        tenant: job.view.tenant.clone(),
        requested_by: context.caller.subject.clone(),
        reason,
        at_ms: api.clock.now_ms(),
        id: api.ids.uuid().to_string(),
        requires: Vec::new(),
    };
    let writer = &api.planner()?.writer;
    let records = [
        writer.cancel(&cancel, &context.trace).map_err(Problem::internal)?,
        writer.wait(&Wait::Signal((&cancel).into()), &context.trace).map_err(Problem::internal)?,
    ];
    let unavailable = || {
        let detail =
            "The database did not answer, so it is not certain that the job is cancelled. Asking again is safe.";
        Problem::new(Kind::NotReady, detail).with_job(job_id).retry_after_s(1)
    };
    in_time(STORE_TIMEOUT, outbox::send(&api.pool, &records), unavailable).await?;
    metrics::counter!("meanwhile_cancels_total").increment(1);
    let Cancel { tenant, requested_by, reason, at_ms, .. } = cancel;
    let flow = job.view.flow.as_str();
    tracing::info!(job.id = %job_id, flow, tenant, requested_by, reason, "job to be cancelled");
    api.cancels.note(job_id, CancelWish { requested_by, reason, at_ms });
    Ok(())
}
