//! `GET /openapi.json`: the HTTP contract as it is at this moment, as OpenAPI 3.1.
//!
//! `openapi.yaml` beside this file holds what is the same everywhere; here it is completed by the flows' own routes,
//! the settings of this process, the problems of the catalogue, and the headers that every request and answer may have.
//! Tests hold it to the router, to the catalogue and to the answers themselves; `contracts/openapi.json` is the last
//! version that was accepted.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::State;
use events::RecordKind;
use flow::definition::{Definition, Upload};
use serde_json::{Map, Value, json};
use web::problem::{CATALOGUE, Kind, MEDIA_TYPE, Problem};

use crate::config::Config;
use crate::state::Api;

static BASE: LazyLock<Value> =
    LazyLock::new(|| serde_saphyr::from_str(include_str!("openapi.yaml")).expect("openapi.yaml is YAML: tested"));

/// The path that every flow has.
const SUBMIT: &str = "/v1/flows/{flow}/jobs";
/// The member of an operation in `openapi.yaml` that names its problems.
const PROBLEMS: &str = "x-problems";
/// Headers that every request may have.
const REQUEST_HEADERS: &[&str] = &["X-Correlation-ID", "traceparent", "tracestate"];
/// Problems that say when to come again.
const TEMPORARY: &[Kind] = &[
    Kind::AnswerLate,
    Kind::NotFinished,
    Kind::IdempotencyKeyInUse,
    Kind::QuotaExceeded,
    Kind::NotReady,
    Kind::TemporaryReducedCapacity,
    Kind::TooManyStreams,
];

/// `GET /openapi.json`
pub(crate) async fn show(State(api): State<Arc<Api>>) -> Result<Json<Value>, Problem> {
    api.ready()?;
    let mut document = document(&api.config, &api.catalog.list());
    if !api.auth.is_required {
        document.as_object_mut().and_then(|document| document.remove("security"));
    }
    // Addresses in it begin at the public URL, which may have a path.
    if !api.public_url.prefix().is_empty() {
        document["servers"] = json!([{ "url": api.public_url.prefix() }]);
    }
    Ok(Json(document))
}

/// The contract of an ingest with these settings, while these flows are active.
pub fn document(config: &Config, flows: &[Definition]) -> Value {
    let mut document = BASE.clone();
    settings(&mut document, config);
    document["paths"].as_object_mut().into_iter().for_each(|paths| paths.extend(schemas()));
    // A flow cannot replace an operation of Meanwhile itself.
    let own = document["paths"].clone();
    for flow in flows {
        add(&mut document, &own, flow);
    }
    let anywhere = take_problems(&mut document, "x-problems-anywhere");
    for (_, item) in members(&mut document, "/paths") {
        for (_, operation) in item.as_object_mut().into_iter().flatten() {
            complete(operation);
        }
    }
    let mut other = problems_response(&anywhere);
    other["description"] = "Any other problem".into();
    other["headers"] = json!({ "Allow": { "$ref": "#/components/headers/Allow" } });
    document["components"]["responses"]["Problem"] = other;
    for (_, response) in members(&mut document, "/components/responses") {
        echo(response);
    }
    document["components"]["examples"] = CATALOGUE.iter().map(|entry| example(entry.kind)).collect();
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document
}

fn members<'a>(document: &'a mut Value, pointer: &str) -> impl Iterator<Item = (&'a String, &'a mut Value)> {
    document.pointer_mut(pointer).and_then(Value::as_object_mut).into_iter().flatten()
}

fn settings(document: &mut Value, config: &Config) {
    let key = &mut document["components"]["parameters"]["Idempotency-Key"];
    let hours = config.idempotency_retention_h;
    let said = key["description"].as_str().unwrap_or_default().trim_end();
    key["description"] = format!("{said} It is remembered for {hours} hours.").into();
    key["required"] = config.idempotency_key_required.into();
    let prefer = &mut document["components"]["parameters"]["Prefer"];
    let said = prefer["description"].as_str().unwrap_or_default().trim_end();
    prefer["description"] = format!("{said} The longest wait is {} s.", config.wait_max_s).into();
    let body = &mut document["paths"][SUBMIT]["post"]["requestBody"];
    let said = body["description"].as_str().unwrap_or_default();
    body["description"] = format!("{said}; at most {} bytes", config.body_bytes_max).into();
}

/// The Avro schemas, in all published versions. `asyncapi.yaml` refers to the latest.
fn schemas() -> impl Iterator<Item = (String, Value)> {
    let operation = |kind: RecordKind, version: u32| {
        json!({
            "operationId": format!("schema-{}-{version}", kind.folder()),
            "tags": ["operation"],
            "security": [],
            "summary": format!("The Avro schema of `{}`, version {version}", kind.full_name()),
            "responses": { "200": {
                "description": "Avro's JSON",
                "content": { "application/json": { "schema": { "type": "object" } } },
            } },
        })
    };
    RecordKind::ALL.into_iter().flat_map(move |kind| {
        (1..=kind.latest_version())
            .map(move |version| (format!("/{}", kind.path(version)), json!({ "get": operation(kind, version) })))
    })
}

/// A flow has its input's schema, and an operation at its own route, or else at the path that every flow has.
fn add(document: &mut Value, own: &Value, flow: &Definition) {
    let name = flow.name();
    let (method, path) = match flow.route() {
        Some(route) => (route.method.to_lowercase(), route.path.clone()),
        None => ("post".to_owned(), SUBMIT.replace("{flow}", name)),
    };
    if own.get(&path).is_some() {
        return;
    }
    let mut operation = document["paths"][SUBMIT]["post"].clone();
    operation["operationId"] = format!("submit-{name}").into();
    operation["summary"] = flow.summary().map_or_else(|| format!("Submit a job to `{name}`"), str::to_owned).into();
    let mut description = format!("Submits a job to the flow `{name}`.");
    if let Some(ttl_ms) = flow.result_ttl_ms() {
        description = format!("{description} Its result is there for {} s after its end.", ttl_ms / 1_000);
    }
    if flow.is_sandbox() {
        description = format!("{description} It is a sandbox: its calls are simulated, and nothing is done.");
        operation["x-sandbox"] = true.into();
    }
    operation["description"] = description.into();
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        // The query of a route of its own is the caller's.
        let is_own = |parameter: &Value| flow.route().is_some() && parameter["in"] == "query";
        parameters.retain(|one| one["$ref"] != "#/components/parameters/flow" && !is_own(one));
    }
    narrow(&mut operation, flow);
    let schema = match flow.input_schema() {
        None => json!({}),
        Some(schema) => {
            document["components"]["schemas"][format!("{name}.input")] = resource(name, schema);
            json!({ "$ref": format!("#/components/schemas/{name}.input") })
        }
    };
    let mut content = json!({ "schema": schema });
    if let Some(examples) = flow.input_schema().and_then(|schema| schema.get("examples")?.as_array()) {
        let named = |(number, value): (usize, &Value)| (format!("{name}-{}", number + 1), json!({ "value": value }));
        content["examples"] = examples.iter().enumerate().map(named).collect();
    }
    operation["requestBody"]["content"] = match flow.upload() {
        None => json!({ "application/json": content }),
        Some(upload) => {
            upload.media_types.iter().map(|media_type| (media_type.clone(), json!({ "schema": {} }))).collect()
        }
    };
    if let Some(upload) = flow.upload() {
        takes_document(&mut operation, upload);
    }
    document["paths"][path][method] = operation;
}

/// The operation of a flow that takes documents.
fn takes_document(operation: &mut Value, upload: &Upload) {
    let bytes_max = upload.bytes_max.map_or_else(String::new, |bytes_max| format!("; at most {bytes_max} bytes"));
    operation["requestBody"]["description"] = format!("The document itself{bytes_max}").into();
    for name in ["Content-Digest", "Repr-Digest"] {
        let description =
            "The SHA-256 of the document (RFC 9530): another body gets 400. Other algorithms are passed over";
        let schema = json!({ "type": "string" });
        let parameter = json!({ "name": name, "in": "header", "description": description, "schema": schema });
        operation["parameters"].as_array_mut().into_iter().for_each(|all| all.push(parameter.clone()));
    }
}

/// Takes away what the operation of all flows has, and this flow's never answers.
fn narrow(operation: &mut Value, flow: &Definition) {
    let mut never = vec![Kind::UnknownFlow];
    if !flow.has_upstream() {
        never.extend([Kind::UpgradeRefused, Kind::UpstreamFailed, Kind::UpstreamTimeout]);
    }
    if let Some(problems) = operation[PROBLEMS].as_array_mut() {
        problems.retain(|problem| !never.iter().any(|kind| problem == kind.entry().name));
    }
    if flow.has_upstream() || flow.forms_answers() {
        return;
    }
    if let Some(responses) = operation["responses"].as_object_mut() {
        responses.retain(|status, _| status != "2XX" && status != "3XX");
    }
    for (_, response) in members(operation, "/responses") {
        if let Some(content) = response.get_mut("content").and_then(Value::as_object_mut) {
            content.shift_remove("*/*");
        }
    }
}

/// A flow's schema within the document: with an id of its own its references lead into it, and it keeps its dialect.
fn resource(flow: &str, schema: &Value) -> Value {
    let stands_alone = schema.get("$schema").is_some() || schema.to_string().contains("\"$ref\":\"#");
    let mut resource = schema.clone();
    if let (Some(words), true) = (resource.as_object_mut(), stands_alone) {
        words.entry("$id").or_insert_with(|| format!("urn:meanwhile:flow:{flow}:input").into());
    }
    resource
}

/// The problems that are named there, which is then taken away.
fn take_problems(place: &mut Value, name: &str) -> Vec<Kind> {
    let names = place.as_object_mut().and_then(|members| members.shift_remove(name)).unwrap_or_default();
    let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
    names.map(|name| Kind::parse(name).expect("openapi.yaml names problems of the catalogue: tested")).collect()
}

/// Problems become responses, and what every request and answer may have is added.
fn complete(operation: &mut Value) {
    let mut by_status: BTreeMap<u16, Vec<Kind>> = BTreeMap::new();
    let is_open = operation["security"].as_array().is_some_and(Vec::is_empty);
    let (challenges, limits) = ([Kind::Unauthorized, Kind::Forbidden], [Kind::QuotaExceeded]);
    let of_credentials = challenges.iter().chain(&limits).filter(|_| !is_open);
    for kind in take_problems(operation, PROBLEMS).iter().chain(of_credentials) {
        let kinds = by_status.entry(kind.entry().status).or_default();
        if !kinds.contains(kind) {
            kinds.push(*kind);
        }
    }
    // What a flow takes is limited where its queues may be too full.
    let submits = by_status.values().flatten().any(|kind| *kind == Kind::TemporaryReducedCapacity);
    for (status, kinds) in by_status {
        operation["responses"][status.to_string()] = problems_response(&kinds);
    }
    if submits {
        for name in ["RateLimit", "RateLimit-Policy"] {
            operation["responses"]["429"]["headers"][name] = header(name);
        }
    }
    for kind in challenges.iter().filter(|_| !is_open) {
        operation["responses"][kind.entry().status.to_string()]["headers"]["WWW-Authenticate"] =
            header("WWW-Authenticate");
    }
    operation["responses"]["default"] = json!({ "$ref": "#/components/responses/Problem" });
    for (_, response) in members(operation, "/responses") {
        echo(response);
    }
    let mut parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    let reference = |name: &&str| json!({ "$ref": format!("#/components/parameters/{name}") });
    parameters.extend(REQUEST_HEADERS.iter().map(reference));
    operation["parameters"] = parameters.into();
}

/// The answer with one status, and the problems that it may be.
fn problems_response(kinds: &[Kind]) -> Value {
    let titles: Vec<&str> = kinds.iter().map(|kind| kind.entry().title).collect();
    let reference = |kind: &Kind| {
        let name = kind.entry().name;
        (name.to_owned(), json!({ "$ref": format!("#/components/examples/{name}") }))
    };
    let examples: Map<String, Value> = kinds.iter().map(reference).collect();
    let mut response = json!({
        "description": titles.join("; or: "),
        "content": { MEDIA_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" }, "examples": examples } },
    });
    if kinds.iter().any(|kind| TEMPORARY.contains(kind)) {
        response["headers"] = json!({ "Retry-After": header("Retry-After") });
    }
    response
}

fn header(name: &str) -> Value {
    json!({ "$ref": format!("#/components/headers/{name}") })
}

/// Every answer echoes the correlation id.
fn echo(response: &mut Value) {
    if response.get("$ref").is_none() {
        response["headers"]["X-Correlation-ID"] = header("X-Correlation-ID");
    }
}

/// One problem of the catalogue, as it is answered.
fn example(kind: Kind) -> (String, Value) {
    let entry = kind.entry();
    let problem = Problem::new(kind, "What happened to this request.").with_instance("/the/path").document("");
    (entry.name.to_owned(), json!({ "summary": entry.title, "value": problem }))
}

#[cfg(test)]
mod tests;
