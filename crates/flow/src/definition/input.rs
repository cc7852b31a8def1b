//! The input's JSON Schema: found, compiled once, and asked.

use jsonschema::Validator;
use serde_json::Value;

use super::node::{Content, Node, Place};
use super::reader::Reader;
use super::{InputError, ResolveRef};

/// Violations that are reported at once: a hostile input has no end of them.
const ERRORS_MAX: usize = 32;
/// Characters of one violation's text; it may quote the input.
const DETAIL_CHARS_MAX: usize = 300;

/// A compiled input schema.
pub(super) struct Input {
    pub(super) schema: Value,
    validator: Validator,
}

impl Input {
    pub(super) fn validate(&self, input: &Value) -> Vec<InputError> {
        let error = |error: jsonschema::ValidationError<'_>| InputError {
            pointer: error.instance_path().to_string(),
            detail: error.to_string().chars().take(DETAIL_CHARS_MAX).collect(),
        };
        self.validator.iter_errors(input).take(ERRORS_MAX).map(error).collect()
    }
}

/// `{ $ref: file }` or a schema as it stands.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, resolve_ref: &mut ResolveRef<'_>) -> Option<Input> {
    if !matches!(node.content, Content::Map(_) | Content::Bool(_)) {
        reader.problem(node.place, format!("`input` is {}", node.kind())).expected =
            Some("a JSON Schema, or { $ref: file.schema.json }".to_owned());
        return None;
    }
    let schema = match reference(node) {
        Some((name, at)) if name.contains('#') => {
            let message = format!("`{name}` is a part of a file: only whole files can be referred to");
            reader.problem(at.place, message).expected = Some("a file that holds this one schema".to_owned());
            return None;
        }
        Some((name, at)) => match resolve_ref(name) {
            Ok(schema) => schema,
            Err(message) => {
                reader.problem(at.place, format!("`{name}` cannot be read: {message}")).expected =
                    Some("a JSON Schema beside the flow file".to_owned());
                return None;
            }
        },
        None => node.to_json(),
    };
    compile(reader, node.place, "`input`", schema)
}

/// A schema in place, of what has that name.
pub(super) fn read_in_place(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Input> {
    if !matches!(node.content, Content::Map(_) | Content::Bool(_)) {
        reader.problem(node.place, format!("{what} is {}", node.kind())).expected = Some("a JSON Schema".to_owned());
        return None;
    }
    compile(reader, node.place, what, node.to_json())
}

/// A schema that is to be valid.
pub(super) fn compile(reader: &mut Reader<'_>, place: Place, what: &str, schema: Value) -> Option<Input> {
    match jsonschema::options().should_validate_formats(true).build(&schema) {
        Ok(validator) => Some(Input { schema, validator }),
        Err(error) => {
            if let Some(name) = foreign_reference(&schema) {
                let message = format!("the schema of {what} refers to another file, `{name}`: a schema is one file");
                reader.problem(place, message).expected =
                    Some("that schema under `$defs`, and { $ref: \"#/$defs/name\" }".to_owned());
                return None;
            }
            let message = format!("{what} is not a JSON Schema: {error} (at `{}`)", error.instance_path());
            reader.problem(place, message);
            None
        }
    }
}

/// The name in `{ $ref: name }`, unless it points into the schema itself.
fn reference(node: &Node) -> Option<(&str, &Node)> {
    let Content::Map(entries) = &node.content else { return None };
    let [(key, value)] = entries.as_slice() else { return None };
    match &value.content {
        Content::Text(name) if key.text == "$ref" && !name.starts_with('#') => Some((name, value)),
        _ => None,
    }
}

/// The first `$ref` that points out of the schema.
fn foreign_reference(schema: &Value) -> Option<&str> {
    match schema {
        Value::Object(entries) => {
            let own = entries.get("$ref").and_then(Value::as_str).filter(|name| !name.starts_with('#'));
            own.or_else(|| entries.values().find_map(foreign_reference))
        }
        Value::Array(items) => items.iter().find_map(foreign_reference),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
