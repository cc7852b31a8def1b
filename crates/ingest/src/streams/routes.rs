//! `GET /v1/jobs/{id}/events` and `GET /v1/events`, in three forms: server-sent events, WebSocket, JSON.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use serde::Deserialize;
use web::caller::Scope;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use super::cursor::Cursor;
use super::feed::{Feed, Source};
use super::job::JobSource;
use super::tenant::{Choice, TenantSource};
use super::{page, socket, sse};
use crate::query::statuses;
use crate::recent::BEFORE_THE_FIRST_EVENT;
use crate::state::Api;
use crate::wait::{WaitQuery, seconds};

/// The cursor that a browser had last, when it connects again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobQuery {
    after: Option<String>,
    #[serde(default, deserialize_with = "seconds")]
    wait: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AllQuery {
    after: Option<String>,
    flow: Option<String>,
    /// One status, or several with commas between them.
    status: Option<String>,
    #[serde(default, deserialize_with = "seconds")]
    wait: Option<u64>,
}

/// The form of the answer.
enum Form {
    Sse,
    Socket(WebSocketUpgrade),
    Page,
}

/// `GET /v1/jobs/{id}/events`
pub(crate) async fn of_job(
    State(api): State<Arc<Api>>,
    Path(job): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    query: Result<Query<JobQuery>, QueryRejection>,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let Query(JobQuery { after, wait }) = query.map_err(|error| malformed(&error))?;
    let form = form(&headers, upgrade)?;
    let after = match cursor(&headers, after.as_deref())? {
        None => BEFORE_THE_FIRST_EVENT,
        Some(text) => text.parse().map_err(|_| no_cursor(text))?,
    };
    if matches!(form, Form::Page) {
        return page::of_job(&api, &context, (&job, after), (&headers, &WaitQuery { wait })).await.map(vary);
    }
    let source = Box::pin(JobSource::open(&api, &context.caller, &job, after)).await?;
    Ok(answer(form, Feed::new(api, &context, Source::Job(source))))
}

/// `GET /v1/events`
pub(crate) async fn of_all(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    query: Result<Query<AllQuery>, QueryRejection>,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    context.caller.require(Scope::JobsRead)?;
    let Query(AllQuery { after, flow, status, wait }) = query.map_err(|error| malformed(&error))?;
    let form = form(&headers, upgrade)?;
    let tenant = context.caller.tenant.clone();
    let after = cursor(&headers, after.as_deref())?;
    let after = after.map(|text| Cursor::parse(&tenant, text).ok_or_else(|| no_cursor(text))).transpose()?;
    let choice = Choice { tenant, flow, statuses: status.as_deref().map(statuses).transpose()? };
    let source = TenantSource::open(&api, choice, after).await?;
    if matches!(form, Form::Page) {
        return page::of_all(&api, &context, source, (&headers, &WaitQuery { wait })).await.map(vary);
    }
    Ok(answer(form, Feed::new(api, &context, Source::Tenant(source))))
}

fn answer(form: Form, feed: Feed) -> Response {
    match form {
        Form::Socket(upgrade) => socket::answer(upgrade, feed),
        Form::Sse | Form::Page => vary(sse::answer(feed)),
    }
}

/// The answer depends on what is accepted.
fn vary(mut response: Response) -> Response {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn form(headers: &HeaderMap, upgrade: Upgrade) -> Result<Form, Problem> {
    let names = |name: HeaderName, wanted: &str| {
        let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
        let mut elements = lines.flat_map(|line| line.split(','));
        elements.any(|element| element.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted))
    };
    match upgrade {
        Ok(upgrade) => Ok(Form::Socket(upgrade)),
        Err(rejection) if names(header::UPGRADE, "websocket") => {
            let detail = format!("This is no WebSocket's handshake: {}.", rejection.body_text());
            Err(Problem::new(Kind::BadRequest, detail))
        }
        Err(_) if names(header::ACCEPT, sse::MEDIA_TYPE) => Ok(Form::Sse),
        Err(_) => Ok(Form::Page),
    }
}

/// The cursor of a browser that connects again counts more than that of its URL, which it had at first.
fn cursor<'a>(headers: &'a HeaderMap, after: Option<&'a str>) -> Result<Option<&'a str>, Problem> {
    let last = match headers.get(LAST_EVENT_ID) {
        Some(value) => Some(value.to_str().map_err(|_| no_cursor(&value.as_bytes().escape_ascii().to_string()))?),
        None => None,
    };
    Ok(last.filter(|text| !text.is_empty()).or(after).filter(|text| !text.is_empty()))
}

fn no_cursor(text: &str) -> Problem {
    let detail = format!("`after` is a cursor from an earlier answer to this caller, not `{text}`.");
    Problem::new(Kind::BadRequest, detail)
}

fn malformed(rejection: &QueryRejection) -> Problem {
    Problem::new(Kind::BadRequest, rejection.body_text())
}
