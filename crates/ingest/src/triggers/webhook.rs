//! `POST /v1/flows/{flow}/webhook`: a signed request of another service starts a job.
//!
//! The signature is over the body byte for byte, so it is checked before anything is read from it. It is the request's
//! credential: what is signed by one of the flow's secrets belongs to the tenant of the commands topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use flow::definition::{Definition, Scheme, Trigger, Webhook};
use flow::id::JobId;
use outbound::verify::{Refusal, Signed, Terms, id_in_header, verify};
use serde_json::{Value, json};
use web::caller::Caller;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use super::{digest, of_trigger};
use crate::idempotency;
use crate::plan::{BadInput, JobRequest};
use crate::request_parts::{check_media_type, parse_json, unreadable};
use crate::state::Api;
use crate::stored::Origin;
use crate::submit::{schema_violation, store_planned};

/// The path of a flow's webhook.
pub(crate) const PATH: &str = "/v1/flows/{flow}/webhook";
/// The header in which GitHub says what has happened.
const GITHUB_EVENT: &str = "x-github-event";

/// `POST /v1/flows/{flow}/webhook`
pub(crate) async fn receive(
    State(api): State<Arc<Api>>,
    Path(flow): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    api.ready()?;
    let Some(definition) = api.catalog.active(&flow) else {
        return Err(Problem::new(Kind::UnknownFlow, api.catalog.no_such_flow(&flow)));
    };
    let Some(webhook) = definition.trigger().and_then(Trigger::webhook) else {
        let detail = format!("The flow `{flow}` takes no webhooks: it has no `on.webhook`.");
        return Err(Problem::new(Kind::NotFound, detail));
    };
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    let header = |name: &str| one(&headers, name);
    let signed = Signed { header: &header, body: &body };
    check(&api, &definition, webhook, &signed)?;
    let caller = api.config.commands_caller();
    let of = (caller.tenant.as_str(), flow.as_str());
    api.quotas.requests(of, 1)?;
    api.quotas.bytes(of, body.len() as u64)?;
    let answer = async {
        check_media_type(&headers)?;
        let told = parse_json(&body)?;
        if let Some(answer) = answered_at_once(webhook.verify, &signed, &told) {
            count(&flow, "answered");
            return Ok(answer);
        }
        let id = id(webhook, &signed, &told);
        let input = webhook.input(told, |name| header(name).map(str::to_owned));
        if !webhook.picks.takes(&input).map_err(bad_input)? {
            count(&flow, "filtered");
            return Ok(Json(json!({ "ignored": "filter" })).into_response());
        }
        let id = match webhook.picks.id(&input).map_err(bad_input)? {
            Some(id) => id,
            None => id?,
        };
        idempotency::check(&id).map_err(|error| bad_input(format!("the webhook's id: {error}")))?;
        start(&api, &caller, &definition, (input, id), context).await
    }
    .await;
    if answer.as_ref().is_err_and(|problem| problem.kind().entry().status < 500) {
        count(&flow, "refused");
    }
    api.quotas.tell(of, answer)
}

fn count(flow: &str, outcome: &'static str) {
    metrics::counter!("meanwhile_webhooks_received_total", "flow" => flow.to_owned(), "outcome" => outcome)
        .increment(1);
}

/// A header that stands once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// The problem 401 for what nobody has signed who knows a secret.
fn check(api: &Api, definition: &Definition, webhook: &Webhook, signed: &Signed<'_>) -> Result<(), Problem> {
    let known: &BTreeMap<String, String> = &api.trigger_secrets;
    let secrets: Vec<&str> = webhook
        .secrets
        .iter()
        .filter_map(|name| known.get(name))
        .map(String::as_str)
        .filter(|it| !it.is_empty())
        .collect();
    if secrets.is_empty() {
        let names: Vec<String> = webhook.secrets.iter().map(|name| format!("MEANWHILE_SECRET_{name}")).collect();
        let detail = format!("None of the secrets of this webhook is set here: {}.", names.join(", "));
        return Err(Problem::new(Kind::NotReady, detail).retry_after_s(30));
    }
    let Webhook { verify: scheme, signature, tolerance_ms, .. } = webhook;
    let terms = Terms { scheme: *scheme, signature, tolerance_ms: *tolerance_ms, secrets: &secrets };
    verify(&terms, signed, api.clock.now_ms()).map_err(|refusal| {
        count(definition.name(), refusal.as_str());
        unsigned(*scheme, refusal)
    })
}

fn unsigned(scheme: Scheme, refusal: Refusal) -> Problem {
    let detail = format!("The request is not signed as `{}` asks for: {refusal}.", scheme.as_str());
    Problem::new(Kind::BadSignature, detail)
}

fn bad_input(detail: String) -> Problem {
    schema_violation(BadInput::whole(detail))
}

/// Requests by which services look whether somebody is there: they start nothing.
fn answered_at_once(scheme: Scheme, signed: &Signed<'_>, told: &Value) -> Option<Response> {
    match scheme {
        Scheme::Slack if told["type"] == "url_verification" => {
            Some(Json(json!({ "challenge": told["challenge"] })).into_response())
        }
        Scheme::Github if (signed.header)(GITHUB_EVENT) == Some("ping") => {
            Some(Json(json!({ "ignored": "ping" })).into_response())
        }
        _ => None,
    }
}

/// The id that a repetition of this webhook has, too; the digest of its body where the scheme has none there.
fn id(webhook: &Webhook, signed: &Signed<'_>, told: &Value) -> Result<String, Problem> {
    let of_body = |name: &str| told[name].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
    let digest = || digest(signed.body);
    match webhook.verify {
        Scheme::Standard | Scheme::Github => id_in_header(webhook.verify, signed).map(str::to_owned).ok_or_else(|| {
            let detail = "The request has no id by which a repetition of it would be known, or a too long one.";
            Problem::new(Kind::BadRequest, detail)
        }),
        Scheme::Stripe => Ok(of_body("id").unwrap_or_else(digest)),
        Scheme::Slack => Ok(of_body("event_id").unwrap_or_else(digest)),
        Scheme::Hmac => Ok(digest()),
    }
}

/// Stores the job, or finds the one of an earlier request with this id.
async fn start(
    api: &Api,
    caller: &Caller,
    definition: &Definition,
    (input, id): (Value, String),
    context: RequestContext,
) -> Result<Response, Problem> {
    api.check_capacity(definition)?;
    let now_ms = api.clock.now_ms();
    let job = JobId::new(api.ids.uuid_v7(now_ms));
    let request = JobRequest {
        job,
        tenant: caller.tenant.clone(),
        submitted_by: "trigger:webhook".to_owned(),
        input,
        fallback_key: None,
        idempotency_key: Some(format!("webhook {id}")),
        correlation_id: context.correlation_id,
        trace: context.trace,
        now_ms,
        retry_of: None,
        start_after_ms: None,
        start: None,
        webhook: None,
    };
    let own = Origin::of(&request);
    let acceptance = of_trigger(api.planner()?.plan(definition, request).map_err(schema_violation)?);
    let stored = store_planned(api, caller, own, acceptance).await?;
    count(definition.name(), if stored.replayed { "repeated" } else { "accepted" });
    Ok(stored.answer(api, caller))
}
