//! Events page by page, as JSON: what there is behind the cursor, or, with a wait, what comes first.

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use store::jobs::PastBounds;
use web::context::RequestContext;
use web::problem::Problem;

use super::item::{End, Item};
use super::tenant::TenantSource;
use crate::job_lookup::behind;
use crate::past::{self, PastPage, Rest};
use crate::state::Api;
use crate::wait::{Asked, Until, WaitQuery};

/// The most events in one answer, and the most bytes of them, but for the last event.
const PAGE: PastBounds = PastBounds { events: 1_000, bytes: 1024 * 1024 };

/// The events of a job after a cursor.
pub(super) async fn of_job(
    api: &Api,
    context: &RequestContext,
    (job, after): (&str, i64),
    (headers, wait): (&HeaderMap, &WaitQuery),
) -> Result<Response, Problem> {
    let mut asked = Asked::of(api, context, headers, wait);
    let look = || Box::pin(past::page(api, &context.caller, job, after, PAGE));
    let is_wanted = |page: &PastPage| !page.events.is_empty() || page.rest == Rest::Over;
    let answer = asked.until_seen(api, job, Until::Change, look, is_wanted).await.and_then(|page| {
        // Another instance has told more already.
        if after > page.cursor {
            return Err(behind(page.job));
        }
        let next = page.events.last().map_or(after, |(cursor, _)| *cursor);
        Ok(body(page.events.into_iter().map(|(_, event)| event).collect(), &next.to_string()))
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
    asked.tell(Ok(body(events, &source.cursor())))
}

fn body(events: Vec<String>, next: &str) -> Response {
    let body = format!("{{\"events\":[{}],\"next\":{}}}", events.join(","), json!(next));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// What there is now.
async fn read(api: &Api, source: &mut TenantSource) -> Result<Vec<String>, Problem> {
    let (mut events, mut bytes) = (Vec::new(), 0);
    while events.len() < PAGE.events && bytes < PAGE.bytes {
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
