//! Values that a JSON Schema accepts, and what it says of a name.

use serde_json::{Map, Value, json};

/// The depth to which a schema is followed.
const DEPTH_MAX: u32 = 8;

/// What a schema says of a name within the input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Declared<'s> {
    /// The schema of the value; none where it says nothing.
    pub(crate) schema: Option<&'s Value>,
    /// How sure it is to be there.
    pub(crate) presence: Presence,
}

/// How sure a value is to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Required,
    Optional,
    /// The schema does not speak of it.
    Unknown,
    /// The schema does not allow it.
    Forbidden,
}

/// What a schema says of the value with these names.
pub(crate) fn declared<'s>(root: Option<&'s Value>, names: &[&str]) -> Declared<'s> {
    let Some(root) = root else { return Declared { schema: None, presence: Presence::Unknown } };
    let (mut schema, mut presence) = (root, Presence::Required);
    for name in names {
        schema = resolved(root, schema);
        let is_required = schema["required"].as_array().is_some_and(|names| names.iter().any(|other| other == name));
        match schema["properties"].get(*name) {
            Some(inner) => {
                schema = inner;
                if !is_required && presence == Presence::Required {
                    presence = Presence::Optional;
                }
            }
            None if schema["additionalProperties"] == false => {
                return Declared { schema: None, presence: Presence::Forbidden };
            }
            None => {
                let presence = if is_required { presence } else { Presence::Unknown };
                return Declared { schema: None, presence };
            }
        }
    }
    Declared { schema: Some(resolved(root, schema)), presence }
}

fn resolved<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let target = schema["$ref"].as_str().and_then(|name| root.pointer(name.strip_prefix('#')?));
    target.unwrap_or(schema)
}

/// A value that the schema accepts, as far as its keywords are understood: its own example, or the least that it needs.
pub(crate) fn sample(root: &Value, schema: &Value, depth: u32) -> Value {
    let schema = resolved(root, schema);
    let given = [&schema["examples"][0], &schema["default"], &schema["const"], &schema["enum"][0]];
    if let Some(given) = given.into_iter().find(|value| !value.is_null()) {
        return given.clone();
    }
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    for several in ["oneOf", "anyOf"] {
        if let Some(first) = schema[several].get(0).filter(|_| schema.get("type").is_none()) {
            return sample(root, first, depth + 1);
        }
    }
    let object = if schema.get("properties").is_some() || depth == 0 { "object" } else { "string" };
    match schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or(object) {
        "string" => text(schema),
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        "boolean" => Value::Bool(true),
        "array" => (0..length(schema, "minItems")).map(|_| sample(root, &schema["items"], depth + 1)).collect(),
        "object" => Value::Object(object_of(root, schema, depth)),
        _ => Value::Null,
    }
}

fn object_of(root: &Value, schema: &Value, depth: u32) -> Map<String, Value> {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    required.map(|name| (name.to_owned(), sample(root, &schema["properties"][name], depth + 1))).collect()
}

fn text(schema: &Value) -> Value {
    let text = match schema["format"].as_str() {
        Some("email") => "someone@example.com".to_owned(),
        Some("uuid") => "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".to_owned(),
        Some("date") => "2030-01-01".to_owned(),
        Some("date-time") => "2030-01-01T00:00:00Z".to_owned(),
        Some("uri") => "https://example.com/".to_owned(),
        _ => "x".repeat(length(schema, "minLength").max(1)),
    };
    Value::String(text)
}

fn length(schema: &Value, name: &str) -> usize {
    schema[name].as_u64().and_then(|length| usize::try_from(length).ok()).unwrap_or(0).min(100)
}

/// The value with these names.
pub(crate) fn get<'v>(value: &'v Value, names: &[&str]) -> Option<&'v Value> {
    names.iter().try_fold(value, |value, name| value.get(name))
}

/// Sets the value with these names, with mappings along the way; none takes it out. False where that cannot be.
pub(crate) fn set(value: &mut Value, names: &[&str], new: Option<Value>) -> bool {
    let Some((name, rest)) = names.split_first() else {
        if let Some(new) = new {
            *value = new;
        }
        return true;
    };
    let Value::Object(entries) = value else { return new.is_none() };
    match (rest.is_empty(), new) {
        (true, None) => {
            entries.remove(*name);
            true
        }
        (_, None) => entries.get_mut(*name).is_none_or(|inner| set(inner, rest, None)),
        (_, Some(new)) => {
            let empty = if rest.is_empty() { Value::Null } else { json!({}) };
            set(entries.entry((*name).to_owned()).or_insert(empty), rest, Some(new))
        }
    }
}
