//! Fields that only a later version of ours knows: those of the schema that wrote a record, and not of ours. A record
//! in which all of them hold their defaults says nothing by them.

use std::fmt;

use apache_avro::Schema;
use serde_json::Value;

/// A field that this version does not know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LaterField {
    /// Its name, after those of the fields that it is within.
    path: Vec<String>,
    /// None: it has no default, so that it is always set.
    default: Option<Value>,
}

impl fmt::Display for LaterField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path.join("."))
    }
}

impl LaterField {
    /// True if the record, as JSON, holds something else than the default.
    pub(crate) fn is_set(&self, record: &Value) -> bool {
        let mut values = vec![record];
        for name in &self.path {
            let each = values.into_iter().flat_map(|value| match value {
                Value::Array(items) => items.as_slice(),
                other => std::slice::from_ref(other),
            });
            values = each.filter_map(|value| value.get(name)).collect();
        }
        values.iter().any(|value| Some(*value) != self.default.as_ref())
    }
}

/// The fields of `written` that `ours` does not have.
pub(crate) fn fields(written: &Schema, ours: &Schema) -> Vec<LaterField> {
    let mut found = Vec::new();
    find(written, ours, &[], &mut found);
    found
}

fn find(written: &Schema, ours: &Schema, path: &[String], found: &mut Vec<LaterField>) {
    match (written, ours) {
        (Schema::Array(written), Schema::Array(ours)) => find(&written.items, &ours.items, path, found),
        (Schema::Record(written), Schema::Record(ours)) => {
            for field in &written.fields {
                let path = [path, std::slice::from_ref(&field.name)].concat();
                match ours.fields.iter().find(|known| known.name == field.name) {
                    Some(known) => find(&field.schema, &known.schema, &path, found),
                    None => found.push(LaterField { path, default: field.default.clone() }),
                }
            }
        }
        _ => {}
    }
}
