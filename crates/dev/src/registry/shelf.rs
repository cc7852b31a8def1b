//! Schemas by id and by subject. No I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Schemas kept; a laptop has a handful.
const SCHEMAS_MAX: usize = 10_000;

/// The language of a schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum SchemaType {
    #[default]
    Avro,
    Json,
    Protobuf,
}

impl SchemaType {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `skip_serializing_if` passes a reference")]
    fn is_avro(&self) -> bool {
        *self == Self::Avro
    }
}

/// A schema as it is kept and returned.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Schema {
    #[serde(skip_serializing_if = "SchemaType::is_avro")]
    pub(super) schema_type: SchemaType,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) references: Vec<Value>,
    pub(super) schema: String,
}

/// A refusal with Confluent's code (its first three digits are the HTTP status).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u32,
    pub(super) message: String,
}

pub(super) fn refuse<T>(code: u32, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

/// The compatibility levels that there are.
const LEVELS: [&str; 7] =
    ["NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"];

/// All schemas: `schemas[id - 1]`, and for each subject the ids of its versions. A deleted version leaves a hole.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    schemas: Vec<Schema>,
    subjects: BTreeMap<String, Vec<Option<usize>>>,
    level: Option<String>,
    subject_levels: BTreeMap<String, String>,
}

impl Shelf {
    pub(super) fn register(&mut self, subject: &str, schema: Schema) -> Result<usize, Refusal> {
        let schema = checked(schema)?;
        let known = self.schemas.iter().position(|known| *known == schema);
        if known.is_none() && self.schemas.len() >= SCHEMAS_MAX {
            return refuse(50001, "The built-in registry is full; use a real one with SCHEMA_REGISTRY_URL");
        }
        let id = known.unwrap_or_else(|| {
            self.schemas.push(schema);
            self.schemas.len() - 1
        }) + 1;
        let versions = self.subjects.entry(subject.to_owned()).or_default();
        if !versions.contains(&Some(id)) {
            versions.push(Some(id));
        }
        Ok(id)
    }

    pub(super) fn by_id(&self, id: usize) -> Result<&Schema, Refusal> {
        match id.checked_sub(1).and_then(|place| self.schemas.get(place)) {
            Some(schema) => Ok(schema),
            None => refuse(40403, format!("Schema {id} not found")),
        }
    }

    /// The subjects and versions that have this id.
    pub(super) fn uses(&self, id: usize) -> Result<Vec<(&str, usize)>, Refusal> {
        self.by_id(id)?;
        let place = |ids: &[Option<usize>]| ids.iter().position(|version| *version == Some(id));
        let uses = self.subjects.iter().filter_map(|(subject, ids)| Some((subject.as_str(), place(ids)? + 1)));
        Ok(uses.collect())
    }

    pub(super) fn subjects(&self) -> Vec<&str> {
        self.subjects.keys().map(String::as_str).collect()
    }

    pub(super) fn versions(&self, subject: &str) -> Result<Vec<usize>, Refusal> {
        let versions = self.ids(subject)?;
        Ok((1..=versions.len()).filter(|version| versions[version - 1].is_some()).collect())
    }

    /// The version that `latest`, `-1` or a number names, with its id.
    pub(super) fn version(&self, subject: &str, version: &str) -> Result<(usize, usize), Refusal> {
        let ids = self.ids(subject)?;
        let wanted = match version {
            "latest" | "-1" => ids.iter().rposition(Option::is_some).map_or(1, |place| place + 1),
            number => match number.parse::<i32>().ok().filter(|number| *number >= 1) {
                Some(number) => usize::try_from(number).unwrap_or_default(),
                None => {
                    return refuse(
                        42202,
                        format!(
                            "The specified version '{number}' is not a valid version id. \
                             Allowed values are between [1, 2^31-1] and the string \"latest\""
                        ),
                    );
                }
            },
        };
        match ids.get(wanted - 1).copied().flatten() {
            Some(id) => Ok((wanted, id)),
            None => refuse(40402, format!("Version {wanted} not found.")),
        }
    }

    /// The version of a subject that has this schema, with its id.
    pub(super) fn look_up(&self, subject: &str, schema: Schema) -> Result<(usize, usize), Refusal> {
        let ids = self.ids(subject)?;
        let schema = checked(schema)?;
        let place = ids.iter().position(|id| id.is_some_and(|id| self.schemas[id - 1] == schema));
        match place.and_then(|place| ids[place].map(|id| (place + 1, id))) {
            Some(found) => Ok(found),
            None => refuse(40403, "Schema not found"),
        }
    }

    pub(super) fn delete_subject(&mut self, subject: &str) -> Result<Vec<usize>, Refusal> {
        let versions = self.versions(subject)?;
        self.subjects.remove(subject);
        self.subject_levels.remove(subject);
        Ok(versions)
    }

    pub(super) fn delete_version(&mut self, subject: &str, version: &str) -> Result<usize, Refusal> {
        let (version, _) = self.version(subject, version)?;
        let Some(ids) = self.subjects.get_mut(subject) else { return Ok(version) };
        ids[version - 1] = None;
        if ids.iter().all(Option::is_none) {
            self.subjects.remove(subject);
        }
        Ok(version)
    }

    /// The level of a subject, or of the registry.
    pub(super) fn level(&self, subject: Option<&str>) -> Result<&str, Refusal> {
        match subject {
            None => Ok(self.level.as_deref().unwrap_or("BACKWARD")),
            Some(subject) => match self.subject_levels.get(subject) {
                Some(level) => Ok(level),
                None => {
                    let message = "does not have subject-level compatibility configured";
                    refuse(40408, format!("Subject '{subject}' {message}"))
                }
            },
        }
    }

    pub(super) fn set_level(&mut self, subject: Option<&str>, level: &str) -> Result<(), Refusal> {
        let level = level.to_ascii_uppercase();
        if !LEVELS.contains(&level.as_str()) {
            return refuse(42203, format!("Invalid compatibility level. Valid values are {}", LEVELS.join(", ")));
        }
        match subject {
            None => self.level = Some(level),
            Some(_) if self.subject_levels.len() >= SCHEMAS_MAX => {
                return refuse(50001, "The built-in registry is full");
            }
            Some(subject) => {
                self.subject_levels.insert(subject.to_owned(), level);
            }
        }
        Ok(())
    }

    fn ids(&self, subject: &str) -> Result<&Vec<Option<usize>>, Refusal> {
        match self.subjects.get(subject) {
            Some(ids) => Ok(ids),
            None => refuse(40401, format!("Subject '{subject}' not found.")),
        }
    }
}

/// The schema in its canonical text (JSON without blanks), if it can be one.
fn checked(schema: Schema) -> Result<Schema, Refusal> {
    let invalid = |why: &str| refuse(42201, format!("Invalid schema: {why}"));
    if schema.schema.trim().is_empty() {
        return invalid("it is empty");
    }
    if schema.schema_type == SchemaType::Protobuf {
        return Ok(schema);
    }
    let text: Value = match serde_json::from_str(&schema.schema) {
        Ok(text) => text,
        Err(error) => return invalid(&error.to_string()),
    };
    if schema.schema_type == SchemaType::Avro && !could_be_avro(&text) {
        return invalid("an Avro schema is a type's name, an object with `type`, or an array of these");
    }
    Ok(Schema { schema: text.to_string(), ..schema })
}

/// The outer shape only: the schemas that matter are checked where they are written.
fn could_be_avro(schema: &Value) -> bool {
    match schema {
        Value::String(name) => !name.is_empty(),
        Value::Array(branches) => branches.iter().all(could_be_avro),
        Value::Object(members) => match members.get("type").and_then(Value::as_str) {
            Some("record" | "error") => {
                members.get("name").is_some_and(Value::is_string) && members.get("fields").is_some_and(Value::is_array)
            }
            Some("enum") => members.get("symbols").is_some_and(Value::is_array),
            Some("array") => members.get("items").is_some_and(could_be_avro),
            Some("map") => members.get("values").is_some_and(could_be_avro),
            Some(_) => true,
            None => members.get("type").is_some_and(could_be_avro),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
