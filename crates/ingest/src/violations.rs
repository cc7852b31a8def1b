//! The problem of what violates its schema, with each place.

use flow::definition::InputError;
use serde_json::{Value, json};
use web::problem::{Kind, Problem};

/// The most schema violations in one answer.
const ERRORS_MAX: usize = 50;

/// `what` violates its schema.
pub(crate) fn violations(what: &str, errors: Vec<InputError>) -> Problem {
    let count = errors.len();
    let told: Vec<Value> = errors
        .into_iter()
        .take(ERRORS_MAX)
        .map(|InputError { pointer, detail }| json!({ "pointer": format!("#{pointer}"), "detail": detail }))
        .collect();
    let detail = match told.as_slice() {
        [only] => format!("{}: {}", only["pointer"].as_str().unwrap_or("#"), only["detail"].as_str().unwrap_or("")),
        _ => format!("{what} violates the flow's schema in {count} places."),
    };
    Problem::new(Kind::SchemaViolation, detail).with("errors", told)
}
