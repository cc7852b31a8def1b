//! Events page by page, as JSON: what there is behind the cursor, or, with a wait, what comes first.

use axum::Json;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use web::context::RequestContext;
use web::problem::Problem;

use super::item::{End, Item};
use super::tenant::TenantSource;
use crate::answer;
use crate::job_lookup::behind;
use crate::state::Api;
use crate::wait::{Asked, Until, WaitQuery};

/// The most events in one answer.
const EVENTS_MAX: usize = 1_000;
/// The most bytes of events of all jobs in one answer, but for the last event.
const BYTES_MAX: usize = 1024 * 1024;

/// The events of a job after a cursor.
pub(super) async fn of_job(
    api: &Api,
    context: &RequestContext,
    (job, after): (&str, i64),
    (headers, wait): (&HeaderMap, &WaitQuery),
) -> Result<Response, Problem> {
    let mut asked = Asked::of(api, context, headers, wait);
    let state = asked
        .until(api, &context.caller, job, Until::Change, |job| job.view.cursor > after || job.view.status.is_final());
    let answer = state.await.and_then(|state| {
        // Another instance has told more already.
        if after > state.view.cursor {
            return Err(behind(state.view.job));
        }
        let news: Vec<_> = state.events.iter().filter(|(cursor, _)| *cursor > after).take(EVENTS_MAX).collect();
        let next = news.last().map_or(after, |(cursor, _)| *cursor);
        let list: Vec<_> = news.into_iter().map(|(cursor, event)| answer::event(*cursor, event)).collect();
        Ok(Json(json!({ "events": list, "next": next.to_string() })).into_response())
    });
    asked.tell(answer)
}

/// The events of all jobs after a cursor.
pub(super) async fn of_all(
    api: &Api,
    context: &RequestContext,
    mut source: TenantSource,
    (headers, wait): (&HeaderMap, &WaitQuery),
) -> Result<Response, Problem> {
    let mut asked = Asked::of(api, context, headers, wait);
    if asked.waits() {
        asked.honour_wait();
    }
    let events = loop {
        let events = read(api, &mut source).await?;
        if !events.is_empty() || !asked.waits() || !asked.in_time(api, source.news()).await {
            break events;
        }
    };
    let next = json!(source.cursor());
    let body = format!("{{\"events\":[{}],\"next\":{next}}}", events.join(","));
    asked.tell(Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response()))
}

/// What there is now.
async fn read(api: &Api, source: &mut TenantSource) -> Result<Vec<String>, Problem> {
    let (mut events, mut bytes) = (Vec::new(), 0);
    while events.len() < EVENTS_MAX && bytes < BYTES_MAX {
        match source.ready(api).await {
            Some(Item::Event { text, .. }) => {
                bytes += text.len();
                events.push(text);
            }
            Some(Item::End(End::Failed(problem))) if events.is_empty() => return Err(problem),
            _ => break,
        }
    }
    Ok(events)
}
