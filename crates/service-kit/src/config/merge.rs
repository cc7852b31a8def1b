//! Laying the file and the environment over the defaults of one section.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::error::ConfigError;
use super::redact::shown;
use super::sources::Sources;

/// The source of a value that neither file nor environment sets.
pub(super) const DEFAULT_SOURCE: &str = "default";

/// A section with everything laid over, and where each value came from, by path within the section.
pub(super) struct Merged {
    pub(super) table: Table,
    pub(super) origins: BTreeMap<String, String>,
}

pub(super) fn section(name: &str, default_toml: &str, sources: &Sources) -> Result<Merged, ConfigError> {
    let table: Table = toml::from_str(default_toml).map_err(|error| ConfigError::File {
        file: format!("default.toml of `{name}`"),
        detail: error.to_string().trim_end().to_owned(),
    })?;
    let mut merged = Merged { table, origins: BTreeMap::new() };
    if let Some(value) = sources.file().get(name) {
        let Value::Table(over) = value else {
            return Err(wrong_type(name, sources.file_name(), "a table", value));
        };
        merged.lay(name, over, sources.file_name())?;
    }
    for (variable, path, text) in sources.overrides() {
        if path.first().is_some_and(|first| first == name) {
            merged.set(name, &path[1..], text, variable)?;
        }
    }
    Ok(merged)
}

/// The setting that `refused` objects to: the one that is refused alone, over the defaults.
pub(super) fn culprit(
    name: &str,
    default_toml: &str,
    sources: &Sources,
    refused: impl Fn(Table) -> Option<String>,
) -> Option<ConfigError> {
    let merged = section(name, default_toml, sources).ok()?;
    for (path, source) in &merged.origins {
        let value = at(&merged.table, path)?;
        let mut alone: Table = toml::from_str(default_toml).ok()?;
        *at_mut(&mut alone, path)? = value.clone();
        if let Some(detail) = refused(alone) {
            let of_variable = sources.overrides().any(|(variable, ..)| variable == source);
            let source_name = if of_variable { format!("the variable {source}") } else { source.clone() };
            return Some(wrong_type(&format!("{name}.{path}"), &source_name, &expected(&detail), value));
        }
    }
    None
}

fn at<'table>(table: &'table Table, path: &str) -> Option<&'table Value> {
    match path.split_once('.') {
        Some((first, rest)) => at(table.get(first)?.as_table()?, rest),
        None => table.get(path),
    }
}

fn at_mut<'table>(table: &'table mut Table, path: &str) -> Option<&'table mut Value> {
    match path.split_once('.') {
        Some((first, rest)) => at_mut(table.get_mut(first)?.as_table_mut()?, rest),
        None => table.get_mut(path),
    }
}

/// The expectation in serde's message, without the names of Rust's types.
fn expected(detail: &str) -> String {
    let first = detail.lines().next().unwrap_or_default();
    let expected = first.rsplit_once("expected ").map_or(first, |(_, expected)| expected);
    match expected {
        "u8" => format!("a whole number from 0 to {}", u8::MAX),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number from 0".to_owned(),
        other => other.to_owned(),
    }
}

impl Merged {
    fn lay(&mut self, section: &str, over: &Table, source_name: &str) -> Result<(), ConfigError> {
        let Self { table, origins } = self;
        lay_table(table, over, section, source_name, &mut |path: &str| {
            let within = path.strip_prefix(section).unwrap_or(path).trim_start_matches('.');
            origins.insert(within.to_owned(), source_name.to_owned());
        })
    }

    /// Sets the value at `path` from the text of a variable, typed as the default is.
    fn set(&mut self, section: &str, path: &[String], text: &str, variable: &str) -> Result<(), ConfigError> {
        let source_name = format!("the variable {variable}");
        let full = format!("{section}.{}", path.join("."));
        let (last, parents) = path.split_last().map_or(("", path), |(last, parents)| (last.as_str(), parents));
        let mut table = &mut self.table;
        for key in parents {
            if !matches!(table.get(key), Some(Value::Table(_))) {
                return Err(ConfigError::unknown_name(&full, key, &source_name, table.keys().map(String::as_str)));
            }
            table = table.get_mut(key).and_then(Value::as_table_mut).expect("matched just above");
        }
        if !table.contains_key(last) {
            return Err(ConfigError::unknown_key(&full, &source_name, table));
        }
        let value = table.get_mut(last).expect("looked up just above");
        *value = typed(value, text)
            .ok_or_else(|| wrong_type(&full, &source_name, &kind(value), &Value::String(text.to_owned())))?;
        self.origins.insert(path.join("."), variable.to_owned());
        Ok(())
    }
}

fn lay_table(
    base: &mut Table,
    over: &Table,
    path: &str,
    source_name: &str,
    set: &mut impl FnMut(&str),
) -> Result<(), ConfigError> {
    for (key, value) in over {
        let full = format!("{path}.{key}");
        if !base.contains_key(key) {
            return Err(ConfigError::unknown_key(&full, source_name, base));
        }
        let before = base.get_mut(key).expect("looked up just above");
        match (&mut *before, value) {
            (Value::Table(before), Value::Table(over)) => lay_table(before, over, &full, source_name, set)?,
            (Value::Float(before), Value::Integer(over)) => {
                // A ratio may be written without its point; settings are far below 2^53.
                *before = *over as f64;
                set(&full);
            }
            (before, over) if fits(before, over) => {
                *before = over.clone();
                set(&full);
            }
            (before, over) => return Err(wrong_type(&full, source_name, &kind(before), over)),
        }
    }
    Ok(())
}

fn wrong_type(key: &str, source_name: &str, expected: &str, found: &Value) -> ConfigError {
    ConfigError::WrongType {
        key: key.to_owned(),
        source_name: source_name.to_owned(),
        expected: expected.to_owned(),
        found: format!("`{}`", shown(key, found)),
    }
}

/// True if `over` may stand where `default` stands.
fn fits(default: &Value, over: &Value) -> bool {
    match (default, over) {
        (Value::Array(default), Value::Array(over)) => {
            default.first().is_none_or(|sample| over.iter().all(|element| element.same_type(sample)))
        }
        _ => default.same_type(over),
    }
}

/// The type of a default, for a person.
fn kind(value: &Value) -> String {
    match value {
        Value::String(_) => "a string".to_owned(),
        Value::Integer(_) => "an integer".to_owned(),
        Value::Float(_) => "a number".to_owned(),
        Value::Boolean(_) => "true or false".to_owned(),
        Value::Datetime(_) => "a date and time".to_owned(),
        Value::Table(_) => "a table".to_owned(),
        Value::Array(elements) => match elements.first() {
            Some(Value::Integer(_)) => "an array of integers".to_owned(),
            Some(Value::Float(_)) => "an array of numbers".to_owned(),
            _ => "an array of strings".to_owned(),
        },
    }
}

/// The text of a variable as a value of the default's type; lists are separated by commas.
fn typed(default: &Value, text: &str) -> Option<Value> {
    match default {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Integer(_) => text.trim().replace('_', "").parse().ok().map(Value::Integer),
        Value::Float(_) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float),
        Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
        Value::Datetime(_) => text.trim().parse().ok().map(Value::Datetime),
        Value::Table(_) => None,
        Value::Array(elements) => {
            let text_sample = Value::String(String::new());
            let sample = elements.first().unwrap_or(&text_sample);
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(|part| typed(sample, part)).collect::<Option<_>>().map(Value::Array)
        }
    }
}
