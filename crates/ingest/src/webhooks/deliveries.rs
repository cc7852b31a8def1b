//! The log of deliveries: `GET /v1/webhooks/deliveries`, one of them with its attempts, and sending it once more.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use events::time::rfc3339;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::webhooks::{self, Attempt, Choice, Delivery, Status, message_id};
use uuid::Uuid;
use web::caller::Scope;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use super::{DELIVERIES, ENDPOINTS, delivery_id, read, stored, unknown_delivery};
use crate::query;
use crate::state::Api;

/// Deliveries of one answer, where the caller asks for no other number, and at most.
const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 200;
/// Attempts that are shown of one delivery, the last ones.
const ATTEMPTS_MAX: u32 = 100;

/// The choice, as callers write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    endpoint: Option<String>,
    job: Option<String>,
    status: Option<String>,
    /// The `next` of an earlier answer.
    cursor: Option<String>,
    limit: Option<u32>,
}

impl Filter {
    fn choice(&self) -> Result<Choice, Problem> {
        let id = |name: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => Uuid::try_parse(text).map(Some).map_err(|_| {
                Problem::new(Kind::BadRequest, format!("`{name}` is an id such as {}, not `{text}`.", Uuid::nil()))
            }),
        };
        let status = self.status.as_deref().map(|text| {
            Status::parse(text).ok_or_else(|| {
                let known = Status::ALL.map(|status| format!("`{}`", status.as_str())).join(", ");
                Problem::new(Kind::BadRequest, format!("`status` is one of {known}, not `{text}`."))
            })
        });
        let cursor = self.cursor.as_deref().filter(|text| !text.is_empty()).map(|text| {
            delivery_id(text).map_err(|_| {
                Problem::new(Kind::BadRequest, format!("`cursor` is the `next` of an earlier answer, not `{text}`."))
            })
        });
        Ok(Choice {
            endpoint: id("endpoint", &self.endpoint)?,
            job: id("job", &self.job)?,
            status: status.transpose()?,
            below: cursor.transpose()?,
        })
    }
}

/// `GET /v1/webhooks/deliveries`
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    context.caller.require(Scope::Operate)?;
    let Query(filter) = query.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))?;
    let (choice, limit) = (filter.choice()?, query::limit(filter.limit, LIMIT, LIMIT_MAX)?);
    let mut found = read(webhooks::list_deliveries(&api.pool, &context.caller.tenant, choice, limit + 1)).await?;
    let next = query::cut(&mut found, limit).map(|last| message_id(last.id));
    let deliveries: Vec<Value> = found.iter().map(|delivery| shown(delivery, api.public_url.prefix())).collect();
    Ok(Json(json!({ "deliveries": deliveries, "next": next })))
}

/// `GET /v1/webhooks/deliveries/{id}`
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Extension(context): Extension<RequestContext>,
) -> Result<Json<Value>, Problem> {
    context.caller.require(Scope::Operate)?;
    let found = read(webhooks::find_delivery(&api.pool, &context.caller.tenant, delivery_id(&id)?)).await?;
    let delivery = found.ok_or_else(|| unknown_delivery(&id))?;
    let attempts = read(webhooks::attempts(&api.pool, delivery.id, ATTEMPTS_MAX)).await?;
    let mut body = shown(&delivery, api.public_url.prefix());
    body["body"] = serde_json::from_slice(&delivery.body).unwrap_or_default();
    body["attempt_log"] = attempts.iter().map(attempt).collect();
    Ok(Json(body))
}

/// `POST /v1/webhooks/deliveries/{id}/resend`
pub(crate) async fn resend(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Extension(context): Extension<RequestContext>,
) -> Result<Response, Problem> {
    context.caller.require(Scope::Operate)?;
    let (delivery, request) = (delivery_id(&id)?, api.ids.uuid_v7(api.clock.now_ms()));
    if !stored(webhooks::resend(&api.pool, &context.caller.tenant, request, delivery)).await? {
        return Err(unknown_delivery(&id));
    }
    let at = format!("{}{DELIVERIES}/{id}", api.public_url.prefix());
    Ok((StatusCode::ACCEPTED, Json(json!({ "delivery": id, "links": { "delivery": at } }))).into_response())
}

fn shown(delivery: &Delivery, prefix: &str) -> Value {
    let id = message_id(delivery.id);
    let mut links = json!({
        "self": format!("{prefix}{DELIVERIES}/{id}"),
    });
    let mut body = json!({
        "id": id,
        "endpoint": delivery.endpoint.to_string(),
        "type": delivery.kind,
        "status": delivery.status.as_str(),
        "attempts": delivery.attempts,
        "created_at": rfc3339(delivery.created_at_ms),
    });
    match delivery.of_job {
        true => body["callback"] = true.into(),
        false => links["endpoint"] = format!("{prefix}{ENDPOINTS}/{}", delivery.endpoint).into(),
    }
    if let Some(job) = delivery.job {
        body["job"] = job.to_string().into();
        links["job"] = format!("{prefix}/v1/jobs/{job}").into();
    }
    for (name, at_ms) in [("due_at", delivery.due_at_ms), ("ended_at", delivery.ended_at_ms)] {
        if let Some(at_ms) = at_ms {
            body[name] = rfc3339(at_ms).into();
        }
    }
    body["links"] = links;
    body
}

fn attempt(attempt: &Attempt) -> Value {
    let mut body = Map::new();
    body.insert("attempt".to_owned(), attempt.attempt.into());
    body.insert("ended_at".to_owned(), rfc3339(attempt.ended_at_ms).into());
    body.insert("duration_ms".to_owned(), attempt.duration_ms.into());
    if let Some(status) = attempt.status {
        body.insert("status".to_owned(), status.into());
    }
    for (name, text) in [("error", &attempt.error), ("detail", &attempt.detail)] {
        if let Some(text) = text {
            body.insert(name.to_owned(), text.as_str().into());
        }
    }
    body.insert("answer".to_owned(), String::from_utf8_lossy(&attempt.answer).into());
    body.into()
}
