//! Endpoints: `GET` and `POST /v1/webhooks/endpoints`, `GET`, `PUT` and `DELETE` of one, its secret, and what can be
//! asked for it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use events::time::read_rfc3339;
use flow::definition::InputError;
use outbound::signature::{NotASecret, SECRET_BYTES};
use serde::Deserialize;
use serde_json::{Value, json};
use store::webhooks::{self, Action, Change, Changed, Endpoint, NewEndpoint, Request, message_id};
use uuid::Uuid;
use web::caller::Scope;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use super::form::{FORM, Registration, Rotation, secret, shown};
use super::{DELIVERIES, ENDPOINTS, endpoint_id, read, stored, unknown_endpoint};
use crate::body::{object, object_if_any};
use crate::if_match;
use crate::request_parts::unreadable;
use crate::state::Api;
use crate::violations::violations;

/// Endpoints of a tenant.
const ENDPOINTS_MAX: u32 = 200;

/// The body of a recovery.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    since: String,
}

/// `GET /v1/webhooks/endpoints`
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<RequestContext>,
) -> Result<Json<Value>, Problem> {
    context.caller.require(Scope::Operate)?;
    let found = read(webhooks::list(&api.pool, &context.caller.tenant)).await?;
    let shown: Result<Vec<Value>, NotASecret> =
        found.iter().map(|endpoint| shown(endpoint, api.public_url.prefix())).collect();
    Ok(Json(json!({ "endpoints": shown.map_err(Problem::internal)? })))
}

/// `POST /v1/webhooks/endpoints`
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    context.caller.require(Scope::Operate)?;
    let registration: Registration = object(&headers, &body, FORM)?;
    let registered = registration.checked(&api.guard)?;
    let (tenant, id) = (&context.caller.tenant, api.ids.uuid_v7(api.clock.now_ms()));
    let new = NewEndpoint {
        id,
        url: &registered.url,
        description: &registered.description,
        events: &registered.events,
        rate: registered.rate,
        kind: registered.kind.unwrap_or(webhooks::Kind::Hmac),
        secret: &draw(&api),
    };
    if !stored(webhooks::create(&api.pool, tenant, new, ENDPOINTS_MAX)).await? {
        let detail = format!("There are {ENDPOINTS_MAX} endpoints already.");
        return Err(Problem::new(Kind::TooManyEndpoints, detail));
    }
    let endpoint = find(&api, tenant, id).await?;
    let at = format!("{}{ENDPOINTS}/{id}", api.public_url.prefix());
    let answer = with_secret(&api, &endpoint)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, at)], answer).into_response())
}

/// `GET /v1/webhooks/endpoints/{id}`
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Extension(context): Extension<RequestContext>,
) -> Result<Response, Problem> {
    context.caller.require(Scope::Operate)?;
    let endpoint = find(&api, &context.caller.tenant, endpoint_id(&id)?).await?;
    tagged(&api, &endpoint)
}

/// `PUT /v1/webhooks/endpoints/{id}`
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    context.caller.require(Scope::Operate)?;
    let (tenant, id) = (&context.caller.tenant, endpoint_id(&id)?);
    let registration: Registration = object(&headers, &body, FORM)?;
    let registered = registration.checked(&api.guard)?;
    let version = if_match::required(&headers)?;
    let present = find(&api, tenant, id).await?;
    if registered.kind.is_some_and(|kind| kind != present.signing.kind) {
        let detail = "the kind of a secret stays as it is: register another endpoint, then delete this one".to_owned();
        return Err(violations("The endpoint", vec![InputError { pointer: "/kind".to_owned(), detail }]));
    }
    let change = Change {
        url: &registered.url,
        description: &registered.description,
        events: &registered.events,
        rate: registered.rate,
    };
    done(stored(webhooks::change(&api.pool, tenant, (id, version), change)).await?, id)?;
    tagged(&api, &find(&api, tenant, id).await?)
}

/// `DELETE /v1/webhooks/endpoints/{id}`
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    context.caller.require(Scope::Operate)?;
    let (id, version) = (endpoint_id(&id)?, if_match::optional(&headers)?);
    done(stored(webhooks::delete(&api.pool, &context.caller.tenant, (id, version))).await?, id)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/webhooks/endpoints/{id}/rotate`
pub(crate) async fn rotate(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    context.caller.require(Scope::Operate)?;
    let (tenant, id) = (&context.caller.tenant, endpoint_id(&id)?);
    let rotation: Rotation = object_if_any(&headers, &body, r#"The body is `{"overlap": "24h"}`, or none"#)?;
    let (version, overlap_ms) = (if_match::optional(&headers)?, rotation.overlap_ms()?);
    let secret = draw(&api);
    done(stored(webhooks::rotate(&api.pool, tenant, (id, version), &secret, overlap_ms)).await?, id)?;
    let mut endpoint = find(&api, tenant, id).await?;
    // Of two that rotate at once, each is told its own.
    endpoint.signing.secret = secret.to_vec();
    with_secret(&api, &endpoint)
}

/// `POST /v1/webhooks/endpoints/{id}/enable`
pub(crate) async fn enable(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Extension(context): Extension<RequestContext>,
) -> Result<Response, Problem> {
    context.caller.require(Scope::Operate)?;
    let (tenant, id) = (&context.caller.tenant, endpoint_id(&id)?);
    done(stored(webhooks::enable(&api.pool, tenant, id)).await?, id)?;
    tagged(&api, &find(&api, tenant, id).await?)
}

/// `GET /v1/webhooks/endpoints/{id}/public-key`
pub(crate) async fn public_key(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Extension(context): Extension<RequestContext>,
) -> Result<Json<Value>, Problem> {
    context.caller.require(Scope::Operate)?;
    let endpoint = find(&api, &context.caller.tenant, endpoint_id(&id)?).await?;
    let key = secret(&endpoint.signing).public_key().map_err(Problem::internal)?;
    let key = key.ok_or_else(|| {
        let detail = "The endpoint's signatures are HMAC: its one secret is known to both sides.";
        Problem::new(Kind::NoPublicKey, detail)
    })?;
    Ok(Json(json!({ "public_key": key })))
}

/// `POST /v1/webhooks/endpoints/{id}/ping`
pub(crate) async fn ping(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Extension(context): Extension<RequestContext>,
) -> Result<Response, Problem> {
    context.caller.require(Scope::Operate)?;
    let asked = ask(&api, &context.caller.tenant, &id, Action::Ping).await?;
    let delivery = message_id(asked);
    let at = format!("{}{DELIVERIES}/{delivery}", api.public_url.prefix());
    let body = json!({ "delivery": delivery, "links": { "delivery": at } });
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, at)], Json(body)).into_response())
}

/// `POST /v1/webhooks/endpoints/{id}/recover`
pub(crate) async fn recover(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    context.caller.require(Scope::Operate)?;
    let Since { since } = object(&headers, &body, r#"The body is `{"since": "2026-01-05T09:30:00Z"}`"#)?;
    let since_ms = read_rfc3339(&since).ok_or_else(|| {
        let detail = format!("`since` is a time such as 2026-01-05T09:30:00Z (RFC 3339), not `{since}`.");
        Problem::new(Kind::BadRequest, detail)
    })?;
    ask(&api, &context.caller.tenant, &id, Action::Recover { since_ms }).await?;
    let at = format!("{}{DELIVERIES}?endpoint={id}", api.public_url.prefix());
    Ok((StatusCode::ACCEPTED, Json(json!({ "links": { "deliveries": at } }))).into_response())
}

async fn ask(api: &Api, tenant: &str, text: &str, action: Action) -> Result<Uuid, Problem> {
    let request = Request { id: api.ids.uuid_v7(api.clock.now_ms()), endpoint: endpoint_id(text)?, action };
    match stored(webhooks::ask(&api.pool, tenant, request)).await? {
        true => Ok(request.id),
        false => Err(unknown_endpoint(text)),
    }
}

async fn find(api: &Api, tenant: &str, id: Uuid) -> Result<Endpoint, Problem> {
    read(webhooks::find(&api.pool, tenant, id)).await?.ok_or_else(|| unknown_endpoint(&id.to_string()))
}

fn done(changed: Changed, id: Uuid) -> Result<(), Problem> {
    match changed {
        Changed::Done => Ok(()),
        Changed::Unknown => Err(unknown_endpoint(&id.to_string())),
        Changed::OtherVersion => {
            Err(Problem::new(Kind::PreconditionFailed, "The endpoint has another version by now."))
        }
    }
}

/// A secret that cannot be guessed.
fn draw(api: &Api) -> [u8; SECRET_BYTES] {
    let mut secret = [0; SECRET_BYTES];
    secret.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&api.ids.random_u64().to_be_bytes()[..chunk.len()]));
    secret
}

fn tagged(api: &Api, endpoint: &Endpoint) -> Result<Response, Problem> {
    let body = shown(endpoint, api.public_url.prefix()).map_err(Problem::internal)?;
    Ok(([(header::ETAG, if_match::tag(endpoint.version)?)], Json(body)).into_response())
}

/// The endpoint with its secret, which is shown this once.
fn with_secret(api: &Api, endpoint: &Endpoint) -> Result<Response, Problem> {
    let mut body = shown(endpoint, api.public_url.prefix()).map_err(Problem::internal)?;
    body["secret"] = secret(&endpoint.signing).text().map_err(Problem::internal)?.into();
    let headers = [
        (header::ETAG, if_match::tag(endpoint.version)?),
        (header::CACHE_CONTROL, header::HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Json(body)).into_response())
}
