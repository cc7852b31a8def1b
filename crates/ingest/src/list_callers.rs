//! `GET /v1/flows/{flow}/callers`: who uses which form of the flow's own address.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use events::time::rfc3339;
use serde::Deserialize;
use serde_json::{Value, json};
use store::callers::Usage;
use web::caller::Scope;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::callers::KEPT_DAYS;
use crate::in_time::{STORE_TIMEOUT, in_time, unanswered};
use crate::state::Api;

/// Rows of one answer.
const ROWS_MAX: u32 = 1_000;
const DAYS_DEFAULT: u32 = 7;

/// How far back an answer looks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Since {
    days: Option<u32>,
}

/// `GET /v1/flows/{flow}/callers`
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Path(flow): Path<String>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<Since>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    api.ready()?;
    context.caller.require(Scope::Operate)?;
    let Query(Since { days }) = query.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))?;
    let days = days.unwrap_or(DAYS_DEFAULT);
    if !(1..=KEPT_DAYS).contains(&days) {
        return Err(Problem::new(Kind::BadRequest, format!("`days` is a number from 1 to {KEPT_DAYS}.")));
    }
    if api.catalog.active(&flow).is_none() {
        return Err(Problem::new(Kind::UnknownFlow, api.catalog.no_such_flow(&flow)));
    }
    let listing = store::callers::list(&api.pool, &context.caller.tenant, &flow, days, ROWS_MAX);
    let listed = in_time(STORE_TIMEOUT, listing, unanswered).await?;
    let callers: Vec<Value> = listed.into_iter().map(usage).collect();
    Ok(Json(json!({ "flow": flow, "callers": callers })))
}

fn usage(Usage { day, caller, form, requests, last_seen_ms }: Usage) -> Value {
    json!({ "day": day, "caller": caller, "form": form, "requests": requests, "last_seen": rfc3339(last_seen_ms) })
}
