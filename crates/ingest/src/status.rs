//! `GET /v1/jobs/{id}`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::Value;
use web::context::RequestContext;
use web::problem::Problem;

use crate::answer;
use crate::job_lookup::{JobState, behind, find};
use crate::state::Api;

/// Behind the cursor in an entity tag: the status says that a cancel was asked for, of which no event tells.
const CANCEL: &str = "-cancel";

/// The job's status, unless the caller has it already (`If-None-Match`).
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path(job): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = find(&api, &context.caller, &job).await?;
    let view = &job.view;
    let etag = format!("\"{}{}\"", view.cursor, if job.cancel.is_some() { CANCEL } else { "" });
    let tags = || headers.get_all(header::IF_NONE_MATCH).iter().flat_map(tags);
    let unchanged = tags().any(|tag| tag == etag || tag == "*");
    if tags().filter_map(cursor).any(|known| known > view.cursor) {
        return Err(behind(view.job));
    }
    let mut response =
        if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { Json(document(&api, &job)).into_response() };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    // A cache may keep it, and has to ask each time: the answer is 304 while nothing has happened.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if !view.status.is_final() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(api.config.retry_after_s));
    }
    Ok(response)
}

/// The status document of a job.
pub(crate) fn document(api: &Api, job: &JobState) -> Value {
    let definition = api.catalog.version(&job.view.flow, &job.view.version);
    let url = job.trace_id.as_deref().and_then(|trace_id| api.config.url_of_trace(trace_id));
    let trace = answer::Trace { id: job.trace_id.clone(), url };
    let cancel = job.cancel.as_ref();
    answer::status(api.public_url.prefix(), &job.view, (&trace, cancel), definition.as_ref())
}

fn tags(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(|tag| tag.trim().trim_start_matches("W/"))
}

/// The cursor that is an entity tag of ours.
fn cursor(tag: &str) -> Option<i64> {
    let tag = tag.strip_prefix('"')?.strip_suffix('"')?;
    tag.strip_suffix(CANCEL).unwrap_or(tag).parse().ok()
}
