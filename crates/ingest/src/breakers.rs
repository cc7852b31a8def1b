//! `GET /v1/breakers` and `PUT /v1/breakers/{downstream}`: which downstreams are not called now, and an operator's word
//! on it.
//!
//! The orchestrator owns breakers. This file reads its table, and sends it orders through the outbox.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use events::breaker::{BreakerNews, BreakerSaid, BreakerState};
use events::time::rfc3339;
use events::wait::Wait;
use flow::decide::host_of;
use flow::definition::Definition;
use serde::Deserialize;
use serde_json::{Value, json};
use store::breakers::{self, BreakerRow, ListedBreaker, Phase};
use store::outbox;
use web::caller::Scope;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::body::object;
use crate::in_time::{STORE_TIMEOUT, in_time, unanswered};
use crate::request_parts::unreadable;
use crate::state::Api;

/// The longest reason, and the longest name of a downstream, in bytes.
const REASON_BYTES_MAX: usize = 1_000;
const NAME_BYTES_MAX: usize = 300;

/// The state that an operator wants.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    Open,
    Closed,
    Auto,
}

/// The body of a `PUT`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    state: Wanted,
    reason: Option<String>,
}

/// `GET /v1/breakers`
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<RequestContext>,
) -> Result<Response, Problem> {
    context.caller.require(Scope::Operate)?;
    let listed: Vec<Value> = listed(&api).await?.iter().map(|listed| breaker(listed, api.clock.now_ms())).collect();
    Ok(Json(json!({ "breakers": listed })).into_response())
}

async fn listed(api: &Api) -> Result<Vec<ListedBreaker>, Problem> {
    in_time(STORE_TIMEOUT, breakers::list(&api.pool), unanswered).await
}

/// True if a step can have a downstream of this name: its own word for it, or the host of a URL.
fn is_name(text: &str) -> bool {
    let is_sign = |sign: char| sign.is_alphanumeric() || "-._~%:[]".contains(sign);
    text.len() <= NAME_BYTES_MAX && text.chars().any(char::is_alphanumeric) && text.chars().all(is_sign)
}

/// True if a step says that this is its downstream, or has a URL whose host it is.
fn names(flow: &Definition, downstream: &str) -> bool {
    let said = flow.steps().iter().any(|step| step.downstream.as_deref() == Some(downstream));
    let documents = flow.document()["steps"].as_array().into_iter().flatten();
    let mut urls = documents.flat_map(|step| [&step["http"]["url"], &step["compensate"]["http"]["url"]]);
    said || urls.any(|url| url.as_str().and_then(host_of).as_deref() == Some(downstream))
}

/// True if an active flow names this downstream, or if there is a breaker of it: a host that a flow takes from its
/// environment or its input is known once it was held back.
async fn is_known(api: &Api, downstream: &str) -> Result<bool, Problem> {
    if api.catalog.list().iter().any(|flow| names(flow, downstream)) {
        return Ok(true);
    }
    Ok(listed(api).await?.iter().any(|listed| listed.breaker.downstream == downstream))
}

fn breaker(listed: &ListedBreaker, now_ms: i64) -> Value {
    let BreakerRow { downstream, phase, forced, due_in_ms, reason, ordered_by, openings, .. } = &listed.breaker;
    let probe_in_ms = due_in_ms.filter(|_| *phase == Phase::Paused).and_then(|ms| i64::try_from(ms).ok());
    json!({
        "downstream": downstream,
        "state": phase.state().as_str(),
        "phase": phase.as_str(),
        "forced": forced,
        "since": rfc3339(listed.changed_at_ms),
        "waiting": listed.waiting,
        "openings": openings,
        "reason": Some(reason).filter(|reason| !reason.is_empty()),
        "ordered_by": ordered_by,
        "next_probe_at": probe_in_ms.map(|ms| rfc3339(now_ms.saturating_add(ms))),
    })
}

/// `PUT /v1/breakers/{downstream}`
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    Path(downstream): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    context.caller.require(Scope::Operate)?;
    api.require_deployment(&context.caller, "A breaker")?;
    let order: Order =
        object(&headers, &body, r#"The body is `{"state": "open" | "closed" | "auto", "reason": "..."}`"#)?;
    let reason = order.reason.map(|reason| reason.replace(char::is_control, " "));
    if reason.as_ref().is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
        return Err(Problem::new(Kind::BadRequest, format!("`reason` has at most {REASON_BYTES_MAX} bytes.")));
    }
    if !is_name(&downstream) {
        let detail = format!(
            "A downstream is a host, with its port where that is not the usual one, or the `downstream` of a step: \
             not `{downstream}`."
        );
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    let downstream = downstream.to_lowercase();
    let is_known = is_known(&api, &downstream).await?;
    let state = match order.state {
        Wanted::Open => Some(BreakerState::Open),
        Wanted::Closed => Some(BreakerState::Closed),
        Wanted::Auto => None,
    };
    let by = context.caller.subject.clone();
    tracing::info!(downstream, state = ?order.state, by, reason, "breaker to be set");
    let said = BreakerSaid::Order { state, reason, by };
    let id = api.ids.uuid().to_string();
    let news = BreakerNews { downstream: downstream.clone(), said, id, at_ms: api.clock.now_ms() };
    let record = api.planner()?.writer.wait(&Wait::Breaker(news), &context.trace).map_err(Problem::internal)?;
    let unavailable = || {
        let detail = "The database did not answer, so it is not certain that the breaker is set. Asking again is safe.";
        Problem::new(Kind::NotReady, detail).retry_after_s(1)
    };
    in_time(STORE_TIMEOUT, outbox::send(&api.pool, &[record]), unavailable).await?;
    let asked = state.map_or("auto", BreakerState::as_str);
    let answer = json!({ "downstream": downstream, "asked": asked, "known": is_known });
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_a_step_can_have() {
        for name in ["payment:8080", "erp", "psp-1", "Shop.example.com", "[::1]:80", "b\u{fc}cher.example"] {
            assert!(is_name(name), "{name}");
        }
        for other in ["", " ", "a b", ".", "..", "a/b", "a?b", "a#b", "u@h", "a\\b", "a\0", &"x".repeat(301)] {
            assert!(!is_name(other), "{other}");
        }
    }
}
