//! `GET /v1/jobs/{id}/events?after=cursor`

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::answer;
use crate::job_lookup::{BEFORE_THE_FIRST_EVENT, behind, find};
use crate::state::Api;

/// The most events in one answer.
const EVENTS_MAX: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct After {
    after: Option<String>,
}

/// The events of a job after a cursor.
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path(job): Path<String>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<After>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(After { after }) = query.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))?;
    let after = match after.as_deref() {
        None | Some("") => BEFORE_THE_FIRST_EVENT,
        Some(text) => text.parse().map_err(|_| {
            Problem::new(Kind::BadRequest, format!("`after` is a cursor from an earlier answer, not `{text}`."))
        })?,
    };
    let state = find(&api, &context.caller, &job).await?;
    // Another instance has told more already.
    if after > state.view.cursor {
        return Err(behind(state.view.job));
    }
    let news: Vec<_> = state.events.iter().filter(|(cursor, _)| *cursor > after).take(EVENTS_MAX).collect();
    let next = news.last().map_or(after, |(cursor, _)| *cursor);
    let list: Vec<_> = news.into_iter().map(|(cursor, event)| answer::event(*cursor, event)).collect();
    Ok(Json(json!({ "events": list, "next": next.to_string() })).into_response())
}
