//! The meaning of a change of the result for its readers.

use serde_json::Value;

use super::{Change, shown};
use crate::definition::Definition;

/// Everything that readers of the result may notice, as far as its template tells.
pub(super) fn changes(old: &Definition, new: &Definition) -> Vec<Change> {
    let mut changes = Vec::new();
    match (old.document().get("result"), new.document().get("result")) {
        (None, None) => answers_of_steps(old, new, &mut changes),
        (None, Some(_)) => changes.push(Change::fine("result", "new", "it was null")),
        (Some(_), None) => changes.push(Change::breaking("result", "gone", "it is null now")),
        (Some(old), Some(new)) => compare(old, new, "result", &mut changes),
    }
    answers(old, new, &mut changes);
    changes
}

/// Neither says what its result is: it is its step's output, or null.
fn answers_of_steps(old: &Definition, new: &Definition, changes: &mut Vec<Change>) {
    match (old.answers_as_its_step(), new.answers_as_its_step()) {
        (true, false) => changes.push(Change::breaking("result", "gone", "it was the answer of the flow's only step")),
        (false, true) => {
            changes.push(Change::breaking("result", "new", "it is the answer of the flow's only step now"))
        }
        (true, true) | (false, false) => {}
    }
}

/// The answer that a flow forms for those who wait.
fn answers(old: &Definition, new: &Definition, changes: &mut Vec<Change>) {
    match (old.document().get("respond"), new.document().get("respond")) {
        (None, None) => {}
        (None, Some(_)) => {
            changes.push(Change::breaking("respond", "new", "status, headers or body of the answer may be others"));
        }
        (Some(_), None) => {
            changes.push(Change::breaking(
                "respond",
                "gone",
                "the answer is 200 with the result, or as the only step's",
            ));
        }
        (Some(old), Some(new)) => {
            let (before, after) = (old.get("status"), new.get("status"));
            if before != after {
                let what = format!("{} -> {}", shown(before), shown(after));
                changes.push(Change::breaking("respond.status", what, "clients decide by the status"));
            }
            for part in ["headers", "body"] {
                let (before, after) = (old.get(part), new.get(part));
                let null = Value::Null;
                compare(before.unwrap_or(&null), after.unwrap_or(&null), &format!("respond.{part}"), changes);
            }
        }
    }
}

/// The form of a value, as far as its template tells.
#[derive(PartialEq)]
enum Form {
    Null,
    Bool,
    Number,
    Text,
    List,
    Map,
    /// One expression: whatever it gives.
    Any,
}

fn form(value: &Value) -> Form {
    match value {
        Value::Null => Form::Null,
        Value::Bool(_) => Form::Bool,
        Value::Number(_) => Form::Number,
        Value::String(text) if is_one_expression(text) => Form::Any,
        Value::String(_) => Form::Text,
        Value::Array(_) => Form::List,
        Value::Object(_) => Form::Map,
    }
}

/// `{{a}}-{{b}}` begins and ends with braces, too.
fn is_one_expression(text: &str) -> bool {
    text.starts_with("{{") && text.ends_with("}}") && text.matches("{{").count() == 1
}

fn compare(old: &Value, new: &Value, at: &str, changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let before = before.iter().map(|(name, value)| (name.clone(), value));
            let after: Vec<_> = after.iter().map(|(name, value)| (name.clone(), value)).collect();
            members(before.collect(), &after, at, changes);
        }
        (Value::Array(before), Value::Array(after)) => {
            let named = |(index, value)| (usize::to_string(&index), value);
            let after: Vec<_> = after.iter().enumerate().map(named).collect();
            members(before.iter().enumerate().map(named).collect(), &after, at, changes);
        }
        _ => {
            let what = format!("{} -> {}", shown(Some(old)), shown(Some(new)));
            changes.push(if form(old) == form(new) {
                Change::fine(at, what, "its value is found in another way")
            } else {
                Change::breaking(at, what, "it may have another form than its readers know")
            });
        }
    }
}

fn members(before: Vec<(String, &Value)>, after: &[(String, &Value)], at: &str, changes: &mut Vec<Change>) {
    for (name, old) in &before {
        let at = format!("{at}.{name}");
        match after.iter().find(|(other, _)| other == name) {
            Some((_, new)) => compare(old, new, &at, changes),
            None => changes.push(Change::breaking(at, "gone", "whoever reads it finds nothing")),
        }
    }
    for (name, _) in after.iter().filter(|(name, _)| !before.iter().any(|(other, _)| other == name)) {
        changes.push(Change::fine(format!("{at}.{name}"), "new", "readers may pass over it"));
    }
}
