//! `GET /v1/flows` and `GET /v1/flows/{flow}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use flow::definition::Definition;
use serde_json::{Value, json};
use web::problem::{Kind, Problem};

use crate::state::Api;

/// `GET /v1/flows`
pub(crate) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Value>, Problem> {
    api.ready()?;
    let flows: Vec<Value> = api.catalog.list().iter().map(describe).collect();
    Ok(Json(json!({ "flows": flows })))
}

/// `GET /v1/flows/{flow}`
pub(crate) async fn show(State(api): State<Arc<Api>>, Path(flow): Path<String>) -> Result<Json<Value>, Problem> {
    api.ready()?;
    let Some(definition) = api.catalog.active(&flow) else {
        return Err(Problem::new(Kind::UnknownFlow, api.catalog.no_such_flow(&flow)));
    };
    let mut body = describe(&definition);
    body["document"] = definition.document().clone();
    Ok(Json(body))
}

fn describe(definition: &Definition) -> Value {
    let mut body = json!({
        "flow": definition.name(),
        "version": definition.version(),
        "summary": definition.summary(),
        "route": definition.route().map(|route| format!("{} {}", route.method, route.path)),
        "steps": definition.steps().iter().map(|step| step.id.as_str()).collect::<Vec<_>>(),
    });
    if definition.is_sandbox() {
        body["sandbox"] = true.into();
    }
    if let Some(ttl_ms) = definition.result_ttl_ms() {
        body["result_ttl_s"] = (ttl_ms / 1_000).into();
    }
    body
}
