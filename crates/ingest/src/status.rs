//! `GET /v1/jobs/{id}`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use web::context::RequestContext;
use web::problem::Problem;

use crate::answer;
use crate::job_lookup::{JobState, find};
use crate::state::Api;

/// The job's status, unless the caller has it already (`If-None-Match`).
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path(job): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let JobState { view, trace_id, .. } = find(&api, &context.caller, &job).await?;
    let etag = format!("\"{}\"", view.cursor);
    let unchanged = headers.get_all(header::IF_NONE_MATCH).iter().any(|tags| names(tags, &etag));
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let definition = api.catalog.version(&view.flow, &view.version);
        let url = trace_id.as_deref().and_then(|trace_id| api.config.url_of_trace(trace_id));
        let trace = answer::Trace { id: trace_id, url };
        Json(answer::status(&view, &trace, definition.as_ref())).into_response()
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    if !view.status.is_final() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(api.config.retry_after_s));
    }
    Ok(response)
}

fn names(tags: &HeaderValue, etag: &str) -> bool {
    let tags = tags.to_str().unwrap_or_default();
    tags.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == etag || tag == "*")
}
