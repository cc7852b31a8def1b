//! `/v1/keys`: the API keys of a tenant, as its operators make and revoke them. A key is shown once, in the answer that
//! makes it. The first key of a tenant comes from `meanwhile keys create --bootstrap`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use events::time::rfc3339;
use flow::definition::{InputError, parse_duration_ms};
use serde::Deserialize;
use serde_json::{Value, json};
use store::api_keys::{ApiKey, Created, NewKey};
use web::caller::{Caller, Scope};
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::auth::api_key;
use crate::body::object;
use crate::in_time::{STORE_TIMEOUT, in_time, unanswered};
use crate::request_parts::unreadable;
use crate::state::Api;
use crate::violations::violations;

/// Valid keys of one tenant.
pub(crate) const KEYS_MAX: u32 = 1_000;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 200;
/// The longest life of a key that has an end.
const LIFE_MS_MAX: u64 = 10 * 365 * 24 * 3_600_000;

const FORM: &str = r#"The body is `{"name": "...", "scopes": ["jobs:submit"], "expires_in": "90d"}`"#;

/// A key as somebody wants it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    name: String,
    scopes: Vec<String>,
    /// Such as `90d`; none: the key has no end.
    #[serde(default)]
    expires_in: Option<String>,
}

/// A wish that can be met.
struct Checked {
    name: String,
    scopes: Vec<Scope>,
    life_ms: Option<u64>,
}

impl Wish {
    fn checked(self) -> Result<Checked, Problem> {
        let mut wrong = Vec::new();
        let mut say = |pointer: String, detail: String| wrong.push(InputError { pointer, detail });
        let name = self.name.replace(char::is_control, " ").trim().to_owned();
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            say("/name".to_owned(), format!("expected 1 to {NAME_BYTES_MAX} bytes that say what the key is for"));
        }
        let mut scopes = Vec::new();
        for (number, word) in self.scopes.iter().enumerate() {
            match Scope::parse(word) {
                Some(scope) if scopes.contains(&scope) => say(format!("/scopes/{number}"), "said twice".to_owned()),
                Some(scope) => scopes.push(scope),
                None => {
                    let known = Scope::ALL.map(Scope::as_str).join(", ");
                    say(format!("/scopes/{number}"), format!("expected one of {known}"));
                }
            }
        }
        if self.scopes.is_empty() {
            say("/scopes".to_owned(), "a key without a scope opens nothing".to_owned());
        }
        let life_ms = self.expires_in.as_deref().map(parse_duration_ms);
        if life_ms.is_some_and(|life_ms| !life_ms.is_some_and(|life_ms| (1..=LIFE_MS_MAX).contains(&life_ms))) {
            say("/expires_in".to_owned(), "expected a duration such as 12h or 90d, up to 3650d".to_owned());
        }
        if wrong.is_empty() {
            return Ok(Checked { name, scopes, life_ms: life_ms.flatten() });
        }
        Err(violations("The key", wrong))
    }
}

/// `GET /v1/keys`
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<RequestContext>,
) -> Result<Json<Value>, Problem> {
    context.caller.require(Scope::Operate)?;
    let listing = store::api_keys::list(&api.pool, &context.caller.tenant);
    let keys = in_time(STORE_TIMEOUT, listing, unanswered).await?;
    let now_ms = api.clock.now_ms();
    Ok(Json(json!({ "keys": keys.iter().map(|key| shown(key, now_ms)).collect::<Vec<_>>() })))
}

/// `POST /v1/keys`
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    context.caller.require(Scope::Operate)?;
    let Checked { name, scopes, life_ms } = object::<Wish>(&headers, &body, FORM)?.checked()?;
    // Nobody gives more than they have.
    scopes.iter().try_for_each(|scope| context.caller.require(*scope))?;
    let (key, now_ms) = (api_key::draw(&api.ids), api.clock.now_ms());
    let id = api_key::id_of(&key).unwrap_or_default();
    let Caller { tenant, subject, .. } = &context.caller;
    let words: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let expires_at_ms = life_ms.map(|life_ms| now_ms.saturating_add_unsigned(life_ms));
    let hash = api.auth.keys.hash(&key);
    let new = NewKey { id, tenant, name: &name, hash: &hash, scopes: &words, created_by: subject, expires_at_ms };
    let unavailable = || {
        let detail = "The database did not answer, so it is not certain that there is another key. Nobody has it: \
                      make another one, and revoke this one if `GET /v1/keys` lists it.";
        Problem::new(Kind::NotReady, detail).retry_after_s(1)
    };
    match in_time(STORE_TIMEOUT, store::api_keys::create(&api.pool, new, KEYS_MAX), unavailable).await? {
        Created::Done => {}
        Created::Taken => return Err(Problem::internal(anyhow::anyhow!("a key was drawn twice"))),
        Created::TooMany => {
            let detail = format!("The tenant has {KEYS_MAX} keys that are valid.");
            return Err(Problem::new(Kind::TooManyKeys, detail));
        }
    }
    learned(&api).await;
    let body = json!({
        "id": id,
        "key": key,
        "name": name,
        "tenant": tenant,
        "scopes": words,
        "expires_at": expires_at_ms.map(rfc3339),
    });
    let cached = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, cached, Json(body)).into_response())
}

/// `DELETE /v1/keys/{id}`
pub(crate) async fn revoke(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Extension(context): Extension<RequestContext>,
) -> Result<StatusCode, Problem> {
    context.caller.require(Scope::Operate)?;
    let unknown = || Problem::new(Kind::UnknownKey, format!("There is no API key `{id}`."));
    if id.contains('\0') {
        return Err(unknown());
    }
    let unavailable = || {
        let detail = "The database did not answer, so it is not certain that the key is revoked. Asking again is safe.";
        Problem::new(Kind::NotReady, detail).retry_after_s(1)
    };
    let Caller { tenant, subject, .. } = &context.caller;
    let revoking = store::api_keys::revoke(&api.pool, tenant, &id, subject);
    if !in_time(STORE_TIMEOUT, revoking, unavailable).await? {
        return Err(unknown());
    }
    learned(&api).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Other instances hear of a change; this one knows it before it answers, if Postgres answers again.
async fn learned(api: &Api) {
    let refreshing = in_time(STORE_TIMEOUT, api.auth.keys.refresh(&api.pool), unanswered);
    if let Err(problem) = refreshing.await {
        tracing::debug!(%problem, "API keys are read again later");
    }
}

fn shown(key: &ApiKey, now_ms: i64) -> Value {
    let is_over = key.expires_at_ms.is_some_and(|expires_at_ms| expires_at_ms <= now_ms);
    let status = match key.revoked_at_ms {
        Some(_) => "revoked",
        None if is_over => "expired",
        None => "valid",
    };
    json!({
        "id": key.id,
        "name": key.name,
        "status": status,
        "scopes": key.scopes,
        "created_by": key.created_by,
        "created_at": rfc3339(key.created_at_ms),
        "expires_at": key.expires_at_ms.map(rfc3339),
        "revoked_at": key.revoked_at_ms.map(rfc3339),
        "last_used_at": key.last_used_at_ms.map(rfc3339),
    })
}
