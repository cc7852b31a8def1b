//! Schemas may grow: what was written before a field existed, and after, can be read. What never was ours is refused.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use events::{DecodeError, RecordKind, Schemas};
use serde_json::{Value, json};

use crate::sample::{Any, IDS, samples, schemas};

pub(crate) const OTHER_ID: u32 = 4711;

pub(crate) fn latest(kind: RecordKind) -> Value {
    serde_json::from_str(kind.latest()).unwrap()
}

pub(crate) fn generic(kind: RecordKind, framed: &[u8]) -> Avro {
    let schema = Schema::parse_str(kind.latest()).unwrap();
    GenericDatumReader::builder(&schema).build().unwrap().read_value(&mut &framed[5..]).unwrap()
}

pub(crate) fn write(schema: &Value, id: u32, value: Avro) -> Vec<u8> {
    let schema = Schema::parse(schema).unwrap();
    let datum = GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap();
    [&[0][..], &id.to_be_bytes(), &datum].concat()
}

/// The schema as it would have been before any field with a default was there.
fn without_defaults(mut schema: Value) -> Value {
    let fields = schema["fields"].as_array_mut().unwrap();
    fields.retain(|field| field.get("default").is_none());
    schema
}

fn only(names: &Value, value: Avro) -> Avro {
    let Avro::Record(fields) = value else { unreachable!("our records are records") };
    let named = |name: &str| names["fields"].as_array().unwrap().iter().any(|field| field["name"] == name);
    Avro::Record(fields.into_iter().filter(|(name, _)| named(name)).collect())
}

/// Avro's own resolution of a record that an older schema wrote, by the generic codec.
fn resolved(kind: RecordKind, older: &Value, framed: &[u8]) -> Vec<u8> {
    let (older, ours) = (Schema::parse(older).unwrap(), Schema::parse_str(kind.latest()).unwrap());
    let reader = GenericDatumReader::builder(&older).reader_schema(&ours).build().unwrap();
    write(&latest(kind), IDS.of(kind), reader.read_value(&mut &framed[5..]).unwrap())
}

#[test]
fn a_field_that_was_not_there_takes_the_default_of_its_schema() {
    for (name, sample) in samples() {
        let kind = sample.kind();
        let older = without_defaults(latest(kind));
        let framed = write(&older, OTHER_ID, only(&older, generic(kind, &sample.encode().unwrap())));
        let schemas = schemas();
        schemas.insert(OTHER_ID, &older.to_string());
        let ours = Any::decode(kind, &schemas, &framed).map_err(|error| error.to_string());
        let avros = Any::decode(kind, &schemas, &resolved(kind, &older, &framed)).map_err(|error| error.to_string());
        assert_eq!(ours, avros, "{name}");
        // A wait says what it needs; every other record stands without its later fields.
        assert_eq!(ours.is_err(), kind == RecordKind::Wait, "{name}: {ours:?}");
    }
}

#[test]
fn a_completed_step_takes_the_defaults_of_its_schema() {
    let mut older = latest(RecordKind::Slip);
    let fields = older["fields"].as_array_mut().unwrap();
    let done = fields.iter_mut().find(|field| field["name"] == "done").unwrap();
    done["type"]["items"] = without_defaults(done["type"]["items"].clone());
    let items = done["type"]["items"].clone();
    let (_, sample) = samples().remove(0);
    let Avro::Record(mut fields) = generic(RecordKind::Slip, &sample.encode().unwrap()) else {
        unreachable!("a slip is a record")
    };
    for (name, value) in &mut fields {
        if let (true, Avro::Array(steps)) = (name == "done", value) {
            *steps = steps.drain(..).map(|step| only(&items, step)).collect();
        }
    }
    let framed = write(&older, OTHER_ID, Avro::Record(fields));
    let schemas = schemas();
    schemas.insert(OTHER_ID, &older.to_string());
    let ours = Any::decode(RecordKind::Slip, &schemas, &framed).unwrap();
    let avros = Any::decode(RecordKind::Slip, &schemas, &resolved(RecordKind::Slip, &older, &framed)).unwrap();
    assert_eq!(ours, avros);
}

#[test]
fn a_field_that_a_later_version_adds_is_passed_over_wherever_it_stands_but_a_token_keeps_it() {
    let later_fields = [
        (json!({"name": "later_text", "type": "string", "default": ""}), Avro::String("x".into())),
        (
            json!({"name": "later_list", "type": {"type": "array", "items": "long"}, "default": []}),
            Avro::Array(vec![Avro::Long(1), Avro::Long(2)]),
        ),
        (
            json!({"name": "later_option", "type": ["null", "bytes"], "default": null}),
            Avro::Union(1, Box::new(Avro::Bytes(vec![1, 2]))),
        ),
        (json!({"name": "later_number", "type": "double", "default": 0.0}), Avro::Double(0.5)),
    ];
    for (name, sample) in samples() {
        let kind = sample.kind();
        for (field, value) in &later_fields {
            for at_start in [true, false] {
                let mut later = latest(kind);
                let fields = later["fields"].as_array_mut().unwrap();
                let Avro::Record(mut values) = generic(kind, &sample.encode().unwrap()) else {
                    unreachable!("our records are records")
                };
                let place = if at_start { 0 } else { fields.len() };
                fields.insert(place, field.clone());
                values.insert(place, (field["name"].as_str().unwrap().to_owned(), value.clone()));
                let schemas = schemas();
                schemas.insert(OTHER_ID, &later.to_string());
                let framed = write(&later, OTHER_ID, Avro::Record(values.clone()));
                let read = Any::decode(kind, &schemas, &framed);
                if [RecordKind::Slip, RecordKind::Wait].contains(&kind) {
                    // A token is never sent on without what a later version has put into it.
                    let error = read.unwrap_err();
                    assert!(matches!(error, DecodeError::Newer(_)), "{name} with {field}: {error}");
                    values[place].1 = Avro::try_from(field["default"].clone())
                        .and_then(|default| default.resolve(&Schema::parse(&field["type"])?))
                        .unwrap();
                    let framed = write(&later, OTHER_ID, Avro::Record(values));
                    assert_eq!(Any::decode(kind, &schemas, &framed).unwrap(), sample, "{name} with unset {field}");
                } else {
                    assert_eq!(read.unwrap(), sample, "{name} with {field}");
                }
            }
        }
    }
}

#[test]
fn a_schema_that_never_was_ours_is_refused_with_the_reason() {
    let record =
        |fields: Value| json!({"type": "record", "name": "Cancel", "namespace": "meanwhile", "fields": fields});
    let with = |field: Value| {
        let mut schema = latest(RecordKind::Cancel);
        schema["fields"].as_array_mut().unwrap().push(field);
        schema.to_string()
    };
    let refusals = [
        ("no schema at all".to_owned(), "is no Avro schema"),
        ("\"string\"".to_owned(), "is no record of ours"),
        (json!({"type": "record", "name": "Cancel", "fields": []}).to_string(), "is no record of ours"),
        (record(json!([])).to_string(), "ours cannot be read from"),
        (with(json!({"name": "x", "type": ["null", "Cancel"]})), "no version of ours"),
        (with(json!({"name": "x", "type": {"type": "array", "items": "null"}})), "no version of ours"),
        (
            with(json!({"name": "x", "type": {"type": "fixed", "name": "F", "size": 1_000_000_000}})),
            "no version of ours",
        ),
    ];
    for (schema, wanted) in refusals {
        let schemas = Schemas::new();
        schemas.insert(OTHER_ID, &schema);
        let bytes = [&[0][..], &OTHER_ID.to_be_bytes(), &[0; 64]].concat();
        let error = Any::decode(RecordKind::Cancel, &schemas, &bytes).unwrap_err();
        assert!(matches!(error, DecodeError::OtherSchema { .. }), "{schema}: {error}");
        assert!(error.to_string().contains(wanted), "{schema}: {error}");
    }
}

#[test]
fn the_first_answer_for_an_id_stays() {
    let schemas = schemas();
    schemas.insert(IDS.slip, "nonsense");
    let (_, sample) = samples().remove(0);
    assert!(Any::decode(RecordKind::Slip, &schemas, &sample.encode().unwrap()).is_ok());
    assert!(schemas.contains(IDS.slip) && !schemas.contains(OTHER_ID));
}

/// What a version can say of a record that the newest one wrote.
fn in_version(kind: RecordKind, version: &Value, newest: &[u8]) -> Avro {
    let (writer, reader) = (Schema::parse_str(kind.latest()).unwrap(), Schema::parse(version).unwrap());
    let reader = GenericDatumReader::builder(&writer).reader_schema(&reader).build().unwrap();
    reader.read_value(&mut &newest[5..]).unwrap()
}

#[test]
fn our_published_schemas_read_their_records_whatever_id_these_name() {
    let published = Schemas::published();
    for (name, sample) in samples() {
        let kind = sample.kind();
        let newest = sample.encode().unwrap();
        for (index, avsc) in kind.published().iter().enumerate() {
            let version: Value = serde_json::from_str(avsc).unwrap();
            let framed = write(&version, OTHER_ID, in_version(kind, &version, &newest));
            let schemas = schemas();
            schemas.insert(OTHER_ID, avsc);
            let (by_id, by_ours) = (Any::decode(kind, &schemas, &framed), Any::decode(kind, &published, &framed));
            assert_eq!(by_ours.ok(), by_id.ok(), "{name}, version {}", index + 1);
        }
    }
}

#[test]
fn our_published_schemas_read_nothing_else() {
    let published = Schemas::published();
    for (name, sample) in samples() {
        let framed = sample.encode().unwrap();
        for kind in RecordKind::ALL.into_iter().filter(|kind| *kind != sample.kind()) {
            let read = Any::decode(kind, &published, &framed);
            assert!(matches!(read, Err(DecodeError::UnknownSchema(_))), "{name} as {kind:?}: {read:?}");
        }
        let longer = [&framed[..], &[0]].concat();
        for other in [&framed[..framed.len() - 1], &longer] {
            let read = Any::decode(sample.kind(), &published, other);
            assert!(read.is_err() || sample.kind() == RecordKind::Wait, "{name}: {read:?}");
        }
    }
}
