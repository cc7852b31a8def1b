//! `GET /v1/jobs/{id}`

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::Value;
use web::context::RequestContext;
use web::problem::Problem;

use crate::answer;
use crate::job_lookup::{JobState, behind};
use crate::state::Api;
use crate::wait::{Asked, Until, WaitQuery, wait_query};

/// Behind the cursor in an entity tag: the status says that a cancel was asked for, of which no event tells.
const CANCEL: &str = "-cancel";

/// The job's status, unless the caller has it already (`If-None-Match`). A change of it can be waited for; a caller who
/// wants no more than is needed is sent on to the result once there is one.
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path(job): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    query: Result<Query<WaitQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let mut asked = Asked::of(&api, &context, &headers, &wait_query(query)?);
    let known = Known::of(&headers);
    drop(headers);
    let mut first = None;
    let is_news = |job: &JobState| {
        let etag = etag(job);
        let changed = match known.is_any() {
            // As against the state at the time of asking.
            true => *first.get_or_insert_with(|| etag.clone()) != etag,
            false => !known.has(&etag) && !known.is_newer(job),
        };
        changed || job.view.status.is_final()
    };
    let found = asked.until(&api, &context.caller, &job, Until::Change, is_news).await;
    let is_over = found.as_ref().is_ok_and(|job| job.view.status.is_final());
    if asked.preferences.minimal && is_over {
        asked.honour("return=minimal");
    }
    let answer = found.and_then(|job| answer_of(&api, &job, &known, asked.preferences.minimal));
    asked.tell(answer)
}

fn answer_of(api: &Api, job: &JobState, known: &Known, minimal: bool) -> Result<Response, Problem> {
    let view = &job.view;
    if minimal && view.status.is_final() {
        let result = answer::result_address(api.public_url.prefix(), view.job);
        return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, result)]).into_response());
    }
    let etag = etag(job);
    if known.is_newer(job) {
        return Err(behind(view.job));
    }
    let unchanged = known.has(&etag) || known.0.iter().any(|tag| tag == "*");
    let mut response =
        if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { Json(document(api, job)).into_response() };
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

/// The entity tag of a job's status.
fn etag(job: &JobState) -> String {
    format!("\"{}{}\"", job.view.cursor, if job.cancel.is_some() { CANCEL } else { "" })
}

/// The entity tags that a caller has.
struct Known(Vec<String>);

impl Known {
    fn of(headers: &HeaderMap) -> Self {
        Self(headers.get_all(header::IF_NONE_MATCH).iter().flat_map(tags).map(str::to_owned).collect())
    }

    /// True if the caller names no state.
    fn is_any(&self) -> bool {
        self.0.iter().all(|tag| tag == "*")
    }

    fn has(&self, etag: &str) -> bool {
        self.0.iter().any(|tag| tag == etag)
    }

    /// True if the caller was told of a later state than this.
    fn is_newer(&self, job: &JobState) -> bool {
        self.0.iter().filter_map(|tag| cursor(tag)).any(|known| known > job.view.cursor)
    }
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
