//! Compares two JSON Schemas: finds values that the first accepts and the second may refuse.
//!
//! Keywords that cannot be compared (`not`, `if`, `oneOf`, ...) count as narrower if they differ: better a false alarm
//! than a broken caller. Local references (`#/...`) are followed; annotations are ignored.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// The most levels that are followed; deeper ones must be equal. Documents nest less deep, but references may recurse.
const DEPTH_MAX: usize = 64;
/// References that lead to references, followed at most.
const REFERENCES_MAX: usize = 8;

/// Keywords that are narrower with a larger value.
const LOWER_BOUNDS: &[&str] = &["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"];
/// Keywords that are narrower with a smaller value.
const UPPER_BOUNDS: &[&str] = &["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"];
/// Keywords whose absence means 0.
const COUNTS_FROM_ZERO: &[&str] = &["minLength", "minItems", "minProperties"];
/// Keywords that count as narrower with any other value.
const EXACT: &[&str] = &["pattern", "format", "multipleOf"];
/// Keywords with comparisons of their own.
const COMPARED: &[&str] = &[
    "type",
    "enum",
    "const",
    "uniqueItems",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "allOf",
    "anyOf",
];
/// Keywords that refuse no value.
const ANNOTATIONS: &[&str] = &[
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "contentEncoding",
    "contentMediaType",
    "default",
    "definitions",
    "deprecated",
    "description",
    "example",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
];
/// Keywords whose members are named by whoever writes the schema.
const BY_NAME: &[&str] = &["properties", "patternProperties", "dependentSchemas"];
/// Keywords whose values are no schemas.
const LITERAL: &[&str] = &["enum", "const", "required"];

/// A place at which the second schema takes less than the first, or at least something else.
#[derive(Debug, Clone, PartialEq)]
pub struct Narrowing {
    /// JSON pointer into the value; `*` stands for any item or any other property. Empty: the value itself.
    pub pointer: String,
    /// The kind of the narrowing.
    pub how: How,
}

/// The kind of a narrowing.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// Only the second one asks for this property.
    Required,
    /// Only the second one describes this property.
    Declared,
    /// Only the first one describes this property; the second takes it as it takes any other.
    Undeclared,
    /// The second one refuses whatever is here.
    Refused,
    /// A keyword's value in the first and in the second.
    Keyword {
        /// The keyword.
        keyword: String,
        /// Its value in the first one.
        from: Option<Value>,
        /// Its value in the second one.
        to: Option<Value>,
    },
}

/// The places where `to` takes less than `from`; each of them is a document of its own.
pub fn narrowings(from: &Value, to: &Value) -> Vec<Narrowing> {
    narrowings_within(from, from, to, to)
}

/// [`narrowings`] of schemas within documents, in which their references are looked up.
pub fn narrowings_within(from_document: &Value, from: &Value, to_document: &Value, to: &Value) -> Vec<Narrowing> {
    let mut comparison = Comparison { from_document, to_document, seen: BTreeSet::new(), found: Vec::new() };
    comparison.compare(from, to, "", 0);
    comparison.found
}

struct Comparison<'a> {
    from_document: &'a Value,
    to_document: &'a Value,
    /// Pairs of references that were followed: each once, so that recursive schemas end.
    seen: BTreeSet<(String, String)>,
    found: Vec<Narrowing>,
}

impl Comparison<'_> {
    fn compare(&mut self, from: &Value, to: &Value, at: &str, depth: usize) {
        if let (Some(one), Some(other)) = (reference(from), reference(to))
            && !self.seen.insert((one.to_owned(), other.to_owned()))
        {
            return;
        }
        if depth > DEPTH_MAX {
            return self.opaque("$ref", Some(from), Some(to), at);
        }
        let (from, to) = (resolved(self.from_document, from), resolved(self.to_document, to));
        let anything = Map::new();
        match (&from, &to) {
            (Value::Bool(false), _) | (_, Value::Bool(true)) => {}
            (_, Value::Bool(false)) => self.found(at, How::Refused),
            (from, to) => {
                let from = from.as_object().unwrap_or(&anything);
                let to = to.as_object().unwrap_or(&anything);
                self.values(from, to, at);
                self.bounds(from, to, at);
                self.properties(from, to, at, depth);
                self.items(from, to, at, depth);
                self.rest(from, to, at);
            }
        }
    }

    fn found(&mut self, at: &str, how: How) {
        self.found.push(Narrowing { pointer: at.to_owned(), how });
    }

    fn keyword(&mut self, at: &str, keyword: &str, from: Option<&Value>, to: Option<&Value>) {
        self.found(at, How::Keyword { keyword: keyword.to_owned(), from: from.cloned(), to: to.cloned() });
    }

    /// `type`, `enum` and `const`.
    fn values(&mut self, from: &Map<String, Value>, to: &Map<String, Value>, at: &str) {
        let takes = |types: &BTreeSet<&str>, kind: &str| {
            types.contains(kind) || (kind == "integer" && types.contains("number"))
        };
        if let Some(taken) = types(to)
            && !types(from)
                .or_else(|| types_of_values(from))
                .is_some_and(|given| given.iter().all(|kind| takes(&taken, kind)))
        {
            self.keyword(at, "type", from.get("type"), to.get("type"));
        }
        if let Some(taken) = allowed(to)
            && !allowed(from).is_some_and(|given| given.iter().all(|value| taken.contains(value)))
        {
            let word = if to.contains_key("const") { "const" } else { "enum" };
            self.keyword(at, word, from.get(word), to.get(word));
        }
    }

    fn bounds(&mut self, from: &Map<String, Value>, to: &Map<String, Value>, at: &str) {
        let number = |schema: &Map<String, Value>, word: &str| schema.get(word).and_then(Value::as_f64);
        let tighter = |word: &str| match (number(from, word), number(to, word)) {
            (_, None) => false,
            (None, Some(bound)) => bound > 0.0 || !COUNTS_FROM_ZERO.contains(&word),
            (Some(before), Some(after)) if LOWER_BOUNDS.contains(&word) => after > before,
            (Some(before), Some(after)) => after < before,
        };
        let bounds = LOWER_BOUNDS.iter().chain(UPPER_BOUNDS).filter(|word| tighter(word));
        let exact = EXACT.iter().filter(|word| to.contains_key(**word) && from.get(**word) != to.get(**word));
        let unique = |schema: &Map<String, Value>| schema.get("uniqueItems") == Some(&Value::Bool(true));
        let uniqueness = (unique(to) && !unique(from)).then_some(&"uniqueItems");
        for word in bounds.chain(exact).chain(uniqueness) {
            self.keyword(at, word, from.get(*word), to.get(*word));
        }
    }

    fn properties(&mut self, from: &Map<String, Value>, to: &Map<String, Value>, at: &str, depth: usize) {
        let (before, after) = (entries(from), entries(to));
        let (others_before, others_after) = (others(from), others(to));
        let required_before = required(from);
        for name in required(to).difference(&required_before) {
            self.found(&below(at, name), How::Required);
        }
        for (name, schema) in &before {
            let at = below(at, name);
            match after.get(name) {
                Some(to) => self.compare(schema, to, &at, depth + 1),
                None if others_after == Value::Bool(false) => self.found(&at, How::Refused),
                None => {
                    self.found(&at, How::Undeclared);
                    self.compare(schema, &others_after, &at, depth + 1);
                }
            }
        }
        for (name, schema) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
            let at = below(at, name);
            self.found(&at, How::Declared);
            if others_before.is_object() {
                self.compare(&others_before, schema, &at, depth + 1);
            }
        }
        self.compare(&others_before, &others_after, &below(at, "*"), depth + 1);
    }

    /// `items`, `allOf` and `anyOf`.
    fn items(&mut self, from: &Map<String, Value>, to: &Map<String, Value>, at: &str, depth: usize) {
        if let Some(to) = to.get("items") {
            self.compare(from.get("items").unwrap_or(&Value::Bool(true)), to, &below(at, "*"), depth + 1);
        }
        for word in ["allOf", "anyOf"] {
            let (before, after) = (from.get(word), to.get(word));
            match (before.and_then(Value::as_array), after.and_then(Value::as_array)) {
                (_, None) => {}
                (Some(one), Some(other)) if one.len() == other.len() => {
                    for (from, to) in one.iter().zip(other) {
                        self.compare(from, to, at, depth + 1);
                    }
                }
                (_, Some(_)) => self.opaque(word, before, after, at),
            }
        }
    }

    fn rest(&mut self, from: &Map<String, Value>, to: &Map<String, Value>, at: &str) {
        let words: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
        let known = [COMPARED, LOWER_BOUNDS, UPPER_BOUNDS, EXACT];
        for word in words {
            if !is_annotation(word) && !known.iter().any(|words| words.contains(&word.as_str())) {
                self.opaque(word, from.get(word), to.get(word), at);
            }
        }
    }

    /// Keywords that are not understood must be the same but for annotations, and refer to the same.
    fn opaque(&mut self, word: &str, from: Option<&Value>, to: Option<&Value>, at: &str) {
        let meant = |document: &Value, value: Option<&Value>| {
            let (value, mut targets) = (value.map(essence), BTreeMap::new());
            value.iter().for_each(|value| follow(document, value, &mut targets));
            (value, targets)
        };
        if meant(self.from_document, from) != meant(self.to_document, to) {
            self.keyword(at, word, from, to);
        }
    }
}

/// A schema, or a list of some, without annotations at any depth.
fn essence(schema: &Value) -> Value {
    let of_word = |(word, value): (&String, &Value)| {
        let value = match (word.as_str(), value) {
            (word, value) if LITERAL.contains(&word) => value.clone(),
            (word, Value::Object(schemas)) if BY_NAME.contains(&word) => {
                schemas.iter().map(|(name, schema)| (name.clone(), essence(schema))).collect()
            }
            (_, value) => essence(value),
        };
        (word.clone(), value)
    };
    match schema {
        Value::Array(schemas) => schemas.iter().map(essence).collect(),
        Value::Object(words) => words.iter().filter(|(word, _)| !is_annotation(word)).map(of_word).collect(),
        plain => plain.clone(),
    }
}

/// The targets of the references in a schema, and of those in the targets, by their pointers.
fn follow(document: &Value, schema: &Value, targets: &mut BTreeMap<String, Value>) {
    let pointer = reference(schema).and_then(|name| name.strip_prefix('#'));
    if let Some(pointer) = pointer.filter(|pointer| !targets.contains_key(*pointer))
        && let Some(target) = document.pointer(pointer).map(essence)
    {
        targets.insert(pointer.to_owned(), target.clone());
        follow(document, &target, targets);
    }
    match schema {
        Value::Array(schemas) => schemas.iter().for_each(|schema| follow(document, schema, targets)),
        Value::Object(words) => words.values().for_each(|value| follow(document, value, targets)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_annotation(word: &str) -> bool {
    ANNOTATIONS.contains(&word) || word.starts_with("x-")
}

fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref").and_then(Value::as_str)
}

/// The schema that a local reference leads to, with what stands beside the reference.
fn resolved(document: &Value, schema: &Value) -> Value {
    let mut schema = schema.clone();
    for _ in 0..REFERENCES_MAX {
        let target = reference(&schema).and_then(|name| name.strip_prefix('#'));
        let Some(target) = target.and_then(|pointer| document.pointer(pointer)) else { break };
        let mut merged = target.clone();
        if let (Some(merged), Some(beside)) = (merged.as_object_mut(), schema.as_object()) {
            let beside = beside.iter().filter(|(word, _)| *word != "$ref");
            merged.extend(beside.map(|(word, value)| (word.clone(), value.clone())));
        }
        schema = merged;
    }
    schema
}

/// The types that `type` names.
fn types(schema: &Map<String, Value>) -> Option<BTreeSet<&str>> {
    match schema.get("type")? {
        Value::String(name) => Some(BTreeSet::from([name.as_str()])),
        Value::Array(names) => Some(names.iter().filter_map(Value::as_str).collect()),
        _ => None,
    }
}

/// The types of the values that `enum` or `const` lists.
fn types_of_values(schema: &Map<String, Value>) -> Option<BTreeSet<&'static str>> {
    let kind = |value: &&Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Some(allowed(schema)?.iter().map(kind).collect())
}

/// The values that `enum` or `const` lists.
fn allowed(schema: &Map<String, Value>) -> Option<Vec<&Value>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(only), _) => Some(vec![only]),
        (None, Some(Value::Array(values))) => Some(values.iter().collect()),
        (None, _) => None,
    }
}

fn required(schema: &Map<String, Value>) -> BTreeSet<String> {
    let names = schema.get("required").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn entries(schema: &Map<String, Value>) -> BTreeMap<&String, &Value> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten().collect()
}

/// The rule for properties that are not described.
fn others(schema: &Map<String, Value>) -> Value {
    schema.get("additionalProperties").cloned().unwrap_or(Value::Bool(true))
}

fn below(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}
