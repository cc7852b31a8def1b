//! The audit log: who has asked for a change of what, from where, when, and how it ended. `GET /v1/audit` tells it.
//!
//! Promise: nothing is done that is not in the log. The entry is committed before the deed begins; where it cannot be,
//! the request is refused, and nothing is done. The status is added after the deed: an entry without one is of a
//! process that has ended in between, and the deed may have been done. Of jobs that are submitted, the acceptance
//! itself tells by whom.

use std::sync::Arc;

use axum::RequestExt as _;
use axum::extract::rejection::QueryRejection;
use axum::extract::{MatchedPath, Query, RawPathParams, Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use events::audit::{AuditAnswer, AuditEntry};
use events::time::rfc3339;
use serde::Deserialize;
use serde_json::{Value, json};
use store::audit::{Choice, Entry};
use uuid::Uuid;
use web::caller::Scope;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::in_time::{STORE_TIMEOUT, in_time, unanswered};
use crate::state::Api;
use crate::{batch, query, submit};

/// Entries of one answer, where the caller asks for no other number, and at most.
const LIMIT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;
/// The longest object, in bytes.
const OBJECT_BYTES_MAX: usize = 300;
/// The action of jobs that are submitted.
const SUBMITTED: &str = "job.submit";

/// Actions by method and route. Another route that changes something has both for its name.
const ACTIONS: &[(&str, &str, &str)] = &[
    ("DELETE", "/v1/jobs/{job}", "job.cancel"),
    ("POST", "/v1/jobs/{job}/retry", "job.retry"),
    ("POST", "/v1/jobs/{job}/signals/{name}", "job.signal"),
    ("POST", "/v1/jobs:cancel", "jobs.cancel"),
    ("POST", "/v1/jobs:retry", "jobs.retry"),
    ("POST", "/v1/dead-letters:redrive", "dead-letters.redrive"),
    ("POST", "/v1/dead-letters/{id}/redrive", "dead-letter.redrive"),
    ("DELETE", "/v1/dead-letters/{id}", "dead-letter.drop"),
    ("PUT", "/v1/breakers/{downstream}", "breaker.set"),
    ("PUT", "/v1/flags/{flow}", "flags.set"),
    ("POST", "/v1/flags/{flow}/rollback", "flags.rollback"),
    ("POST", "/v1/webhooks/endpoints", "webhook.create"),
    ("PUT", "/v1/webhooks/endpoints/{id}", "webhook.change"),
    ("DELETE", "/v1/webhooks/endpoints/{id}", "webhook.delete"),
    ("POST", "/v1/webhooks/endpoints/{id}/rotate", "webhook.rotate"),
    ("POST", "/v1/webhooks/endpoints/{id}/enable", "webhook.enable"),
    ("POST", "/v1/webhooks/endpoints/{id}/ping", "webhook.ping"),
    ("POST", "/v1/webhooks/endpoints/{id}/recover", "webhook.recover"),
    ("POST", "/v1/webhooks/deliveries/{id}/resend", "webhook.resend"),
    ("POST", "/v1/keys", "key.create"),
    ("DELETE", "/v1/keys/{id}", "key.revoke"),
];

/// The action of a request that changes something, but for those that submit jobs.
fn action(method: &Method, route: &str) -> Option<String> {
    let changes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
    if !changes || [submit::PATH, batch::PATH].contains(&route) {
        return None;
    }
    let named = ACTIONS.iter().find(|(of, at, _)| *of == method.as_str() && *at == route);
    Some(named.map_or_else(|| format!("{method} {route}"), |(_, _, action)| (*action).to_owned()))
}

/// Notes what a request asks for, and how it was answered.
pub(crate) async fn note<F>(api: &Api, mut request: Request, next: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let route = request.extensions().get::<MatchedPath>();
    let Some(action) = route.and_then(|route| action(request.method(), route.as_str())) else {
        return next(request).await;
    };
    let Some(context) = request.extensions().get::<RequestContext>().cloned() else { return next(request).await };
    let at_ms = api.clock.now_ms();
    let mut entry = AuditEntry {
        id: api.ids.uuid_v7(at_ms),
        tenant: context.caller.tenant.clone(),
        subject: context.caller.subject.clone(),
        action,
        object: object(&mut request).await,
        client: context.client.map(|client| client.to_string()),
        trace_id: Some(context.trace_id()),
        at_ms,
        answer: None,
    };
    if let Err(problem) = begin(api, &entry, &context).await {
        return problem.into_response();
    }
    let response = next(request).await;
    let status = response.status().as_u16();
    entry.answer = Some(AuditAnswer { status, at_ms: api.clock.now_ms() });
    if let Err(problem) = end(api, &entry, &context).await {
        let AuditEntry { id, action, .. } = entry;
        tracing::warn!(entry = %id, action, status, %problem, "the audit log does not tell how this ended");
    }
    response
}

async fn begin(api: &Api, entry: &AuditEntry, context: &RequestContext) -> Result<(), Problem> {
    let record = api.planner()?.writer.audit_entry(entry, &context.trace).map_err(Problem::internal)?;
    let unavailable = || {
        let detail = "The database did not answer, so the request is not in the audit log, and nothing was done.";
        Problem::new(Kind::NotReady, detail).retry_after_s(1)
    };
    in_time(STORE_TIMEOUT, store::audit::begin(&api.pool, entry, &record), unavailable).await
}

async fn end(api: &Api, entry: &AuditEntry, context: &RequestContext) -> Result<(), Problem> {
    let record = api.planner()?.writer.audit_entry(entry, &context.trace).map_err(Problem::internal)?;
    in_time(STORE_TIMEOUT, store::audit::end(&api.pool, entry, &record), unanswered).await
}

/// The object that the path names: a job, an endpoint, a flow. It may be no name of anything.
async fn object(request: &mut Request) -> String {
    let Ok(parameters) = request.extract_parts::<RawPathParams>().await else { return String::new() };
    let named: Vec<&str> = parameters.iter().map(|(_, value)| value).collect();
    let text = named.join("/").replace(char::is_control, "\u{fffd}");
    let end = text.char_indices().map(|(at, sign)| at + sign.len_utf8()).take_while(|end| *end <= OBJECT_BYTES_MAX);
    text[..end.last().unwrap_or(0)].to_owned()
}

/// The choice, as callers write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    subject: Option<String>,
    action: Option<String>,
    object: Option<String>,
    /// RFC 3339.
    since: Option<String>,
    until: Option<String>,
    limit: Option<u32>,
    after: Option<String>,
}

impl Filter {
    fn choice(&self) -> Result<Choice, Problem> {
        let after = self.after.as_deref().filter(|text| !text.is_empty());
        let wrong = |text: &str| {
            Problem::new(Kind::BadRequest, format!("`after` is the `next` of an earlier answer, not `{text}`."))
        };
        Ok(Choice {
            subject: query::text("subject", self.subject.as_ref())?,
            action: query::text("action", self.action.as_ref())?,
            object: query::text("object", self.object.as_ref())?,
            since_ms: query::time("since", self.since.as_deref())?,
            until_ms: query::time("until", self.until.as_deref())?,
            below: after.map(|text| Uuid::parse_str(text).map_err(|_| wrong(text))).transpose()?,
        })
    }
}

/// `GET /v1/audit`
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    context.caller.require(Scope::Operate)?;
    let Query(filter) = query.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))?;
    let (choice, limit) = (filter.choice()?, query::limit(filter.limit, LIMIT, LIMIT_MAX)?);
    let (pool, tenant) = (&api.pool, &context.caller.tenant);
    let mut entries = match filter.action.as_deref() {
        Some(SUBMITTED) => {
            in_time(STORE_TIMEOUT, store::audit::submitted(pool, tenant, &choice, limit + 1), unanswered).await?
        }
        _ => in_time(STORE_TIMEOUT, store::audit::list(pool, tenant, &choice, limit + 1), unanswered).await?,
    };
    let next = query::cut(&mut entries, limit).map(|entry| entry.id.to_string());
    Ok(Json(json!({ "entries": entries.iter().map(shown).collect::<Vec<_>>(), "next": next })))
}

fn shown(entry: &Entry) -> Value {
    json!({
        "id": entry.id.to_string(),
        "at": rfc3339(entry.at_ms),
        "subject": entry.subject,
        "action": entry.action,
        "object": entry.object,
        "client": entry.client,
        "trace_id": entry.trace_id,
        "status": entry.status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_something_has_an_action_also_a_route_that_nobody_has_named() {
        let of = |method: Method, route: &str| action(&method, route);
        assert_eq!(of(Method::DELETE, "/v1/jobs/{job}").as_deref(), Some("job.cancel"));
        assert_eq!(of(Method::PUT, "/v1/new/{id}").as_deref(), Some("PUT /v1/new/{id}"));
        assert_eq!(of(Method::GET, "/v1/jobs/{job}"), None);
        assert_eq!(of(Method::POST, submit::PATH), None, "the acceptance tells it");
    }
}
