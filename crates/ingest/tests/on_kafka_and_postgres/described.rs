//! Every answer of these tests is held to what `/openapi.json` says of it: status, headers, body, problem.

use std::sync::LazyLock;

use axum::http::Method;
use ingest::config::{DEFAULT, SECTION};
use serde_json::{Value, json};
use service_kit::config::{Sources, load};

use crate::stage::Answer;

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| ingest::openapi::document(&load(SECTION, DEFAULT, &Sources::default()).unwrap(), &[]));

/// Where flows' own routes lead.
const SUBMIT: &str = "/v1/flows/{flow}/jobs";

#[track_caller]
pub(crate) fn hold(method: &Method, path: &str, answer: &Answer) {
    // Those of every address are not described one by one.
    if [Method::HEAD, Method::OPTIONS].contains(method) {
        return assert!(answer.text.is_empty(), "{method} {path}: {}", answer.text);
    }
    let operation = &DOCUMENT["paths"][template(path)][method.as_str().to_lowercase()];
    let told = format!("{method} {path} {}: {}", answer.status, answer.text);
    let other = &DOCUMENT["components"]["responses"]["Problem"];
    let response = match response(operation, answer.status) {
        Some(response) => response,
        None if answer.status >= 400 => other,
        None => panic!("no such status is described: {told}"),
    };
    for (name, header) in response["headers"].as_object().unwrap() {
        let is_missing = resolved(header)["required"] == true && answer.header(name).is_empty();
        assert!(!is_missing, "no {name}: {told}");
    }
    let kind = answer.header("content-type").split(';').next().unwrap().trim();
    let content = response["content"].get(kind).or_else(|| response["content"].get("*/*").filter(|_| !kind.is_empty()));
    let Some(content) = content else {
        return assert!(answer.text.is_empty(), "`{kind}` is not described: {told}");
    };
    let schema = json!({ "allOf": [content["schema"]], "components": DOCUMENT["components"] });
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let is_one = kind.ends_with("json") && kind != "application/x-ndjson";
    let body = if is_one { answer.json.clone() } else { answer.text.clone().into() };
    let errors: Vec<String> = validator.iter_errors(&body).map(|it| format!("{} {it}", it.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?}: {told}");
    if kind == "application/problem+json" {
        // A status may be one of a range, too: a step's own 404 beside ours.
        let range = &operation["responses"][range(answer.status)];
        let known = |response: &Value| response["content"][kind]["examples"].get(answer.problem()).is_some();
        assert!([response, range, other].into_iter().any(known), "this problem is not described: {told}");
    }
}

fn template(path: &str) -> &'static str {
    let path = path.split('?').next().unwrap();
    let fits = |template: &str| {
        let mut pairs = template.split('/').zip(path.split('/'));
        template.split('/').count() == path.split('/').count()
            && pairs.all(|(wanted, found)| wanted.starts_with('{') || wanted == found)
    };
    DOCUMENT["paths"].as_object().unwrap().keys().map(String::as_str).find(|template| fits(template)).unwrap_or(SUBMIT)
}

fn response(operation: &'static Value, status: u16) -> Option<&'static Value> {
    let responses = &operation["responses"];
    responses.get(status.to_string()).or_else(|| responses.get(range(status))).map(resolved)
}

fn range(status: u16) -> String {
    format!("{}XX", status / 100)
}

fn resolved(value: &'static Value) -> &'static Value {
    let target = value["$ref"].as_str().and_then(|target| DOCUMENT.pointer(target.trim_start_matches('#')));
    target.unwrap_or(value)
}
