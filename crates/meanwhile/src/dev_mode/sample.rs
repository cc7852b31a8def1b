//! An input that a flow accepts, for the first command that a person tries.

use flow::definition::Definition;
use serde_json::{Map, Value, json};

/// The depth to which a schema is followed.
const DEPTH_MAX: u32 = 8;

/// The schema's own example, or one made of the required fields. None if that is not enough for the flow.
pub(super) fn input(flow: &Definition) -> Option<Value> {
    let sample = match flow.input_schema() {
        Some(schema) => sample(schema, 0),
        None => json!({}),
    };
    (flow.validate_input(&sample).is_empty() && flow.ordering_key(&sample, "any").is_ok()).then_some(sample)
}

fn sample(schema: &Value, depth: u32) -> Value {
    let given = [&schema["examples"][0], &schema["default"], &schema["const"], &schema["enum"][0]];
    if let Some(given) = given.into_iter().find(|value| !value.is_null()) {
        return given.clone();
    }
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or("object");
    match kind {
        "string" => Value::from("x".repeat(length(schema, "minLength").max(1))),
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        "boolean" => Value::Bool(true),
        "array" => (0..length(schema, "minItems")).map(|_| sample(&schema["items"], depth + 1)).collect(),
        "object" => Value::Object(object(schema, depth)),
        _ => Value::Null,
    }
}

fn object(schema: &Value, depth: u32) -> Map<String, Value> {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    required.map(|name| (name.to_owned(), named(name, &schema["properties"][name], depth + 1))).collect()
}

/// A text is shown as its field's name, if the schema allows it, so that a reader knows the field's meaning.
fn named(name: &str, schema: &Value, depth: u32) -> Value {
    match sample(schema, depth) {
        Value::String(text) if schema["type"] == "string" && text.chars().all(|char| char == 'x') => {
            let fits = name.len() >= text.len() && name.len() <= length(schema, "maxLength").max(name.len());
            Value::String(if fits { name.to_owned() } else { text })
        }
        other => other,
    }
}

fn length(schema: &Value, name: &str) -> usize {
    schema[name].as_u64().and_then(|length| usize::try_from(length).ok()).unwrap_or(0).min(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample_of(input: &str) -> Option<Value> {
        let yaml =
            format!("flow: f\ninput: {input}\nkey: \"{{{{ input.id }}}}\"\nsteps: [{{ id: one, native: one }}]\n");
        input_of(&yaml)
    }

    fn input_of(yaml: &str) -> Option<Value> {
        input(&Definition::parse_yaml("f.yaml", yaml, &mut |_| Err("none".to_owned())).unwrap())
    }

    #[test]
    fn what_a_schema_requires_is_in_the_sample_and_nothing_else() {
        let schema = r#"{ type: object, required: [id, qty, tags, to], properties: {
            id: { type: string, minLength: 1 }, qty: { type: integer, minimum: 3 }, note: { type: string },
            tags: { type: array, minItems: 1, items: { enum: [new, old] } },
            to: { type: object, required: [zip], properties: { zip: { type: string, examples: ["1234"] } } } } }"#;
        let expected = json!({ "id": "id", "qty": 3, "tags": ["new"], "to": { "zip": "1234" } });
        assert_eq!(sample_of(schema), Some(expected));
    }

    #[test]
    fn a_sample_that_the_flow_would_refuse_is_none() {
        let pattern = "{ type: object, required: [id], properties: { id: { type: string, pattern: '^[0-9]+$' } } }";
        assert_eq!(sample_of(pattern), None);
        // The schema accepts it, and the ordering key cannot be made of it.
        assert_eq!(sample_of("{ type: object }"), None);
        assert_eq!(input_of("flow: f\nsteps: [{ id: one, native: one }]\n"), Some(json!({})));
    }
}
