//! Every published schema reads what every earlier version of it has written (BACKWARD_TRANSITIVE), as the registry
//! will ask; and says more about what is wrong than a registry does: every field, and why.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use apache_avro::Schema;
use apache_avro::schema::{RecordField, RecordSchema, SchemaKind};
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use events::RecordKind;
use serde_json::{Value, json};

/// Why `reader` cannot read everything that `writer` has written: each field with the reason, nothing when it can.
fn unreadable(reader: &Schema, writer: &Schema) -> Vec<String> {
    let mut found = Vec::new();
    compare(reader, writer, "", &mut found);
    // The codec has the last word; `Partial` means that some records can be read and others cannot.
    if found.is_empty() {
        match SchemaCompatibility::can_read(writer, reader) {
            Ok(Compatibility::Full) => {}
            Ok(Compatibility::Partial) => found.push("some of what was written cannot be read".to_owned()),
            Err(error) => found.push(error.to_string()),
        }
    }
    found
}

fn compare(reader: &Schema, writer: &Schema, at: &str, found: &mut Vec<String>) {
    match (reader, writer) {
        (Schema::Record(reader), Schema::Record(writer)) => records(reader, writer, at, found),
        (Schema::Array(reader), Schema::Array(writer)) => {
            compare(&reader.items, &writer.items, &format!("{at}[]"), found);
        }
        (Schema::Map(reader), Schema::Map(writer)) => {
            compare(&reader.types, &writer.types, &format!("{at}{{}}"), found);
        }
        (_, Schema::Union(writer)) => {
            let lost = writer.variants().iter().filter(|variant| !reads_variant(reader, variant));
            found.extend(lost.map(|variant| format!("`{at}`: may be {}, which is no longer read", kind(variant))));
        }
        (Schema::Union(_), _) => {
            if !reads_variant(reader, writer) {
                found.push(format!("`{at}`: was {}, which is no longer read", kind(writer)));
            }
        }
        (reader, writer) if reads_primitive(SchemaKind::from(reader), SchemaKind::from(writer)) => {}
        (reader, writer) => found.push(format!("`{at}`: its type was {} and is {}", kind(writer), kind(reader))),
    }
}

fn records(reader: &RecordSchema, writer: &RecordSchema, at: &str, found: &mut Vec<String>) {
    if reader.name != writer.name {
        found.push(format!("`{at}`: the record was named {} and is named {}", writer.name, reader.name));
    }
    let written_as = |field: &RecordField| -> Option<Schema> {
        let names = || std::iter::once(&field.name).chain(&field.aliases);
        let named = |name: &String| writer.fields.iter().find(|written| written.name == *name);
        names().find_map(named).map(|written| written.schema.clone())
    };
    for field in &reader.fields {
        let at = if at.is_empty() { field.name.clone() } else { format!("{at}.{}", field.name) };
        match (written_as(field), &field.default) {
            (Some(written), _) => compare(&field.schema, &written, &at, found),
            (None, Some(_)) => {}
            (None, None) => found.push(format!(
                "`{at}`: is new and has no default, so that records without it cannot be read: give it a default"
            )),
        }
    }
}

fn reads_variant(reader: &Schema, writer: &Schema) -> bool {
    let alternatives = match reader {
        Schema::Union(union) => union.variants(),
        single => std::slice::from_ref(single),
    };
    alternatives.iter().any(|alternative| {
        let mut found = Vec::new();
        compare(alternative, writer, "", &mut found);
        found.is_empty()
    })
}

/// Avro also lets text be read as bytes and bytes as text; our records never mean one by the other.
fn reads_primitive(reader: SchemaKind, writer: SchemaKind) -> bool {
    use SchemaKind::{Double, Float, Int, Long};
    reader == writer
        || matches!((writer, reader), (Int, Long | Float | Double) | (Long, Float | Double) | (Float, Double))
}

fn kind(schema: &Schema) -> String {
    format!("{:?}", SchemaKind::from(schema)).to_lowercase()
}

fn parse(text: &str) -> Schema {
    Schema::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Every folder of `schemas/`, with its published versions.
fn folders() -> BTreeMap<String, BTreeMap<u32, String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let versions = |folder: &Path| -> BTreeMap<u32, String> {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let version = |path: &Path| {
            let number = path.file_name().unwrap().to_str().unwrap().strip_suffix(".avsc").map(str::parse);
            number.and_then(Result::ok).unwrap_or_else(|| panic!("{} is not named <version>.avsc", path.display()))
        };
        files.map(|file| (version(&file), fs::read_to_string(file).unwrap())).collect()
    };
    entries.map(|folder| (folder.file_name().unwrap().to_str().unwrap().to_owned(), versions(&folder))).collect()
}

#[test]
fn every_published_schema_reads_what_every_earlier_version_has_written() {
    let mut findings = Vec::new();
    for (folder, versions) in folders() {
        for (later, reader) in &versions {
            for (earlier, writer) in versions.range(..later) {
                let reasons = unreadable(&parse(reader), &parse(writer));
                let told = |reason| format!("schemas/{folder}/{later}.avsc cannot read {earlier}.avsc: {reason}");
                findings.extend(reasons.into_iter().map(told));
            }
        }
    }
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn every_folder_belongs_to_a_record_and_its_versions_are_counted_from_one() {
    let mut known: Vec<_> = RecordKind::ALL.iter().map(|kind| kind.folder().to_owned()).collect();
    known.sort();
    assert_eq!(folders().into_keys().collect::<Vec<_>>(), known);
    for kind in RecordKind::ALL {
        let versions = &folders()[kind.folder()];
        assert!(versions.keys().copied().eq(1..=kind.latest_version()), "{kind:?}: {:?}", versions.keys());
        assert_eq!(versions[&kind.latest_version()], kind.latest(), "{kind:?} is compiled in");
    }
}

/// What is said of a second version that differs from the first in this way.
fn refused(change: impl Fn(&mut Vec<Value>)) -> Vec<String> {
    let first: Value = serde_json::from_str(RecordKind::Slip.latest()).unwrap();
    let mut second = first.clone();
    change(second["fields"].as_array_mut().unwrap());
    unreadable(&parse(&second.to_string()), &parse(&first.to_string()))
}

fn field<'a>(fields: &'a mut [Value], name: &str) -> &'a mut Value {
    fields.iter_mut().find(|field| field["name"] == name).unwrap()
}

#[test]
fn what_could_not_be_read_is_refused_by_field_and_reason() {
    let told = refused(|fields| fields.push(json!({"name": "later", "type": "string"})));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("`later`: is new and has no default"), "{told:?}");

    let told = refused(|fields| field(fields, "hop")["type"] = json!("string"));
    assert_eq!(told, ["`hop`: its type was long and is string"]);
    let told = refused(|fields| field(fields, "hop")["type"] = json!("int"));
    assert_eq!(told, ["`hop`: its type was long and is int"]);
    let told = refused(|fields| field(fields, "input")["type"] = json!("string"));
    assert_eq!(told, ["`input`: its type was bytes and is string"]);

    let told = refused(|fields| {
        let retry_of = field(fields, "retry_of");
        (retry_of["type"], retry_of["default"]) = (json!("string"), json!(""));
    });
    assert_eq!(told, ["`retry_of`: may be null, which is no longer read"]);

    let told = refused(|fields| {
        let step = &mut field(fields, "done")["type"]["items"]["fields"];
        step.as_array_mut().unwrap().push(json!({"name": "cost", "type": "long"}));
        field(fields, "done")["type"]["items"]["fields"][0]["type"] = json!("bytes");
    });
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], "`done[].step`: its type was string and is bytes");
    assert!(told[1].starts_with("`done[].cost`: is new and has no default"), "{told:?}");
}

#[test]
fn what_can_be_read_is_taken() {
    let taken: [fn(&mut Vec<Value>); 5] = [
        |_| {},
        |fields| fields.push(json!({"name": "later", "type": "string", "default": ""})),
        |fields| fields.retain(|field| field["name"] != "priority"),
        |fields| field(fields, "priority")["type"] = json!("long"),
        |fields| field(fields, "key")["type"] = json!(["string", "null"]),
    ];
    for (index, change) in taken.into_iter().enumerate() {
        assert_eq!(refused(change), Vec::<String>::new(), "change {index}");
    }
}

#[test]
fn a_version_is_held_against_all_before_it_and_not_only_the_last() {
    // The second drops a field that the third takes up again as another type: the second reads it, the first does not.
    let version = |fields: Value| json!({"type": "record", "name": "R", "fields": fields}).to_string();
    let first = version(json!([{"name": "a", "type": "string"}, {"name": "b", "type": "string"}]));
    let second = version(json!([{"name": "a", "type": "string"}]));
    let third = version(json!([{"name": "a", "type": "string"}, {"name": "b", "type": "long", "default": 0}]));
    assert!(unreadable(&parse(&third), &parse(&second)).is_empty());
    assert_eq!(unreadable(&parse(&third), &parse(&first)), ["`b`: its type was string and is long"]);
}
