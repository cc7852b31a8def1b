//! Values that know their path, so that a missing one can be named.
//!
//! A look-up of a key that is not there gives a [`Missing`], which may be looked into further and handed to
//! `default` or `is defined`. Any other use leaves it unhandled, and an evaluation with an unhandled miss fails.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Rest, Value};
use minijinja::{Error, ErrorKind};
use parking_lot::Mutex;
use serde_json::Value as Json;

use super::written::Written;

/// The misses of one evaluation.
#[derive(Debug, Default)]
pub(super) struct Misses(Mutex<Vec<(String, bool)>>);

impl Misses {
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    pub(super) fn first_unhandled(&self) -> Option<String> {
        let misses = self.0.lock();
        misses.iter().find(|(_, handled)| !handled).map(|(path, _)| path.clone())
    }

    fn record(self: &Arc<Self>, path: String) -> Value {
        let mut misses = self.0.lock();
        misses.push((path.clone(), false));
        Value::from_object(Missing { path, index: misses.len() - 1, misses: Arc::clone(self) })
    }

    fn handle(&self, index: usize) {
        if let Some(miss) = self.0.lock().get_mut(index) {
            miss.1 = true;
        }
    }
}

/// A value that is not there.
struct Missing {
    path: String,
    index: usize,
    misses: Arc<Misses>,
}

impl fmt::Debug for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "missing {}", self.path)
    }
}

impl Object for Missing {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.misses.handle(self.index);
        Some(self.misses.record(format!("{}[{key}]", self.path)))
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.misses.handle(self.index);
        Some(self.misses.record(format!("{}.{key}", self.path)))
    }

    fn is_true(self: &Arc<Self>) -> bool {
        false
    }
}

/// A mapping that knows its path.
#[derive(Debug)]
pub(super) struct Fields {
    path: String,
    entries: Vec<(String, Value)>,
    misses: Arc<Misses>,
}

impl Fields {
    pub(super) fn value(path: impl Into<String>, entries: Vec<(String, Value)>, misses: &Arc<Misses>) -> Value {
        Value::from_object(Self { path: path.into(), entries, misses: Arc::clone(misses) })
    }

    pub(super) fn entries(&self) -> &[(String, Value)] {
        &self.entries
    }

    fn entry(&self, key: &str) -> Option<Value> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    }
}

impl Object for Fields {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    /// Used by `in` and by `x["key"]`: what is not there is plainly undefined, which strict mode refuses by itself.
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.entry(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        Some(self.entry(key).unwrap_or_else(|| {
            let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
            self.misses.record(path)
        }))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.entries.iter().map(|(key, _)| Value::from(key.as_str())).collect())
    }
}

/// A JSON value as expressions see it.
pub(super) fn wrap(json: &Json, path: &str, misses: &Arc<Misses>) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(bool) => Value::from(*bool),
        Json::Number(number) => Written::value(number, path),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| wrap(item, &format!("{path}[{index}]"), misses))
            .collect::<Vec<_>>()
            .into(),
        Json::Object(entries) => {
            let entry = |(key, value): (&String, &Json)| (key.clone(), wrap(value, &format!("{path}.{key}"), misses));
            Fields::value(path, entries.iter().map(entry).collect(), misses)
        }
    }
}

/// The `default` filter: also handles what is missing along the way (`input.a.b.c | default(1)`).
pub(super) fn default(value: &Value, arguments: Rest<Value>) -> Result<Value, Error> {
    if arguments.len() > 2 {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let fallback = arguments.first().cloned().unwrap_or_else(|| Value::from(""));
    let also_when_false = arguments.get(1).is_some_and(Value::is_true);
    if is_undefined(value) || (also_when_false && !value.is_true()) {
        return Ok(fallback);
    }
    // The fallback is evaluated even when it is not needed; that it is missing does not matter then.
    let _ = is_undefined(&fallback);
    Ok(value.clone())
}

/// True for a value that is not there.
pub(super) fn is_missing(value: &Value) -> bool {
    value.downcast_object_ref::<Missing>().is_some()
}

/// The `defined` test.
pub(super) fn is_defined(value: &Value) -> bool {
    !is_undefined(value)
}

/// The `undefined` test.
pub(super) fn is_undefined(value: &Value) -> bool {
    match value.downcast_object_ref::<Missing>() {
        Some(missing) => {
            missing.misses.handle(missing.index);
            true
        }
        None => value.is_undefined(),
    }
}
