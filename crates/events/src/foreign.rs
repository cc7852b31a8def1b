//! Avro records of others as JSON, field by field as their schema names them.
//!
//! Records, maps, arrays, numbers, texts and booleans become what they are in JSON, and a union the value that it
//! holds. Bytes become Base64, decimals texts of digits, times the numbers that Avro has for them, UUIDs texts. NaN
//! and the infinities become null.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{DecimalSchema, Name};
use apache_avro::types::Value as Avro;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Number, Value};

/// Levels of a schema: its values are read by recursion.
const DEPTH_MAX: usize = 48;
/// A larger `fixed` would be allocated before a byte of it is seen.
const FIXED_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a decimal: their digits are reckoned out.
const DECIMAL_BYTES_MAX: usize = 64;

/// Named types, with their shapes once these are known.
type Types = HashMap<Name, (&'static Schema, Option<Shape>)>;

/// A schema of others, and how its records are read.
pub(crate) struct Foreign {
    schema: &'static Schema,
    types: Types,
    reader: GenericDatumReader<'static>,
}

impl Foreign {
    /// The error continues the sentence "schema id 7 ...".
    pub(crate) fn of(schema_json: &str) -> Result<Self, String> {
        let schema = Schema::parse_str(schema_json).map_err(|error| format!("is no Avro schema: {error}"))?;
        // Kept for the life of the process, as often as schemas are kept at all: the reader borrows it.
        let schema: &'static Schema = Box::leak(Box::new(schema));
        let mut types = Types::new();
        shape(schema, &mut types)?;
        let reader =
            GenericDatumReader::builder(schema).build().map_err(|error| format!("has a loose end: {error}"))?;
        Ok(Self { schema, types, reader })
    }

    /// The error continues the same sentence.
    pub(crate) fn read(&self, mut datum: &[u8]) -> Result<Value, String> {
        let value = self.reader.read_value(&mut datum).map_err(|error| format!("does not fit the datum: {error}"))?;
        if !datum.is_empty() {
            return Err(format!("leaves {} bytes of the datum unread", datum.len()));
        }
        json(value, self.schema, &self.types)
    }
}

/// The size of its values: found once for each named type, so that references cost nothing.
#[derive(Clone, Copy)]
struct Shape {
    /// Levels.
    height: usize,
    /// False if a value may have no bytes at all.
    takes_bytes: bool,
}

impl Shape {
    const PLAIN: Self = Self { height: 1, takes_bytes: true };

    const fn around(self) -> Self {
        Self { height: self.height + 1, takes_bytes: true }
    }
}

/// Collects the named types, and refuses what a datum of a few bytes could blow up: types that contain themselves, and
/// items without bytes, whose count may be without end.
fn shape(schema: &'static Schema, types: &mut Types) -> Result<Shape, String> {
    let found = match schema {
        Schema::Ref { name } => {
            return types
                .get(name)
                .and_then(|known| known.1)
                .ok_or_else(|| format!("has a type that contains itself, {name}"));
        }
        Schema::Record(record) => {
            // Until it is known, a reference to it is one from within.
            types.insert(record.name.clone(), (schema, None));
            let mut whole = Shape { height: 0, takes_bytes: false };
            for field in &record.fields {
                let of_field = shape(&field.schema, types)?;
                whole.height = whole.height.max(of_field.height);
                whole.takes_bytes |= of_field.takes_bytes;
            }
            Shape { height: whole.height + 1, ..whole }
        }
        Schema::Array(array) => match shape(&array.items, types)? {
            items if items.takes_bytes => items.around(),
            _ => return Err("has an array of items without bytes".to_owned()),
        },
        Schema::Map(map) => shape(&map.types, types)?.around(),
        Schema::Union(union) => {
            let mut height = 0;
            for variant in union.variants() {
                height = height.max(shape(variant, types)?.height);
            }
            Shape { height: height + 1, takes_bytes: true }
        }
        Schema::Fixed(fixed) if fixed.size > FIXED_BYTES_MAX => {
            return Err(format!("has a `fixed` of {} bytes, {FIXED_BYTES_MAX} at most", fixed.size));
        }
        Schema::Fixed(fixed) => Shape { height: 1, takes_bytes: fixed.size > 0 },
        Schema::Duration(_) => return Err("has a `duration`, which JSON has no form for".to_owned()),
        Schema::Null => Shape { height: 1, takes_bytes: false },
        _ => Shape::PLAIN,
    };
    if found.height > DEPTH_MAX {
        return Err(format!("nests deeper than {DEPTH_MAX} levels"));
    }
    if let Some(name) = schema.name() {
        types.insert(name.clone(), (schema, Some(found)));
    }
    Ok(found)
}

fn json(value: Avro, schema: &Schema, types: &Types) -> Result<Value, String> {
    let schema = match schema {
        Schema::Ref { name } => types.get(name).map_or(schema, |known| known.0),
        schema => schema,
    };
    Ok(match (value, schema) {
        // The library reads a text or bytes that are cut off as null.
        (Avro::Null, Schema::Null) => Value::Null,
        (Avro::Boolean(value), _) => value.into(),
        (Avro::Int(value) | Avro::Date(value) | Avro::TimeMillis(value), _) => value.into(),
        (
            Avro::Long(value)
            | Avro::TimeMicros(value)
            | Avro::TimestampMillis(value)
            | Avro::TimestampMicros(value)
            | Avro::TimestampNanos(value)
            | Avro::LocalTimestampMillis(value)
            | Avro::LocalTimestampMicros(value)
            | Avro::LocalTimestampNanos(value),
            _,
        ) => value.into(),
        // As it is printed: 0.1 stays 0.1.
        (Avro::Float(value), _) => value.to_string().parse::<f64>().ok().and_then(Number::from_f64).into(),
        (Avro::Double(value), _) => Number::from_f64(value).into(),
        (Avro::String(text) | Avro::Enum(_, text), _) => text.into(),
        (Avro::Bytes(bytes) | Avro::Fixed(_, bytes), _) => BASE64.encode(bytes).into(),
        (Avro::Uuid(uuid), _) => uuid.to_string().into(),
        (Avro::BigDecimal(decimal), _) => decimal.to_string().into(),
        (Avro::Decimal(decimal), Schema::Decimal(DecimalSchema { scale, .. })) => {
            let bytes = Vec::<u8>::try_from(&decimal).map_err(|error| format!("has a bad decimal: {error}"))?;
            decimal_text(&bytes, *scale)?.into()
        }
        (Avro::Union(at, value), Schema::Union(union)) => {
            let variant = union.variants().get(at as usize).ok_or("has no such variant of a union")?;
            json(*value, variant, types)?
        }
        (Avro::Array(items), Schema::Array(array)) => {
            items.into_iter().map(|item| json(item, &array.items, types)).collect::<Result<_, _>>()?
        }
        (Avro::Map(entries), Schema::Map(map)) => {
            let mut entries: Vec<_> = entries.into_iter().collect();
            entries.sort_by(|one, other| one.0.cmp(&other.0));
            let entry = |(key, value)| Ok((key, json(value, &map.types, types)?));
            Value::Object(entries.into_iter().map(entry).collect::<Result<Map<_, _>, String>>()?)
        }
        (Avro::Record(fields), Schema::Record(record)) => {
            let field = |((name, value), field): ((String, Avro), &apache_avro::schema::RecordField)| {
                Ok((name, json(value, &field.schema, types)?))
            };
            Value::Object(fields.into_iter().zip(&record.fields).map(field).collect::<Result<Map<_, _>, String>>()?)
        }
        (other, _) => return Err(format!("does not fit the value {other:?}").chars().take(200).collect()),
    })
}

/// The digits of a number in two's complement, the most significant byte first, with so many behind the point.
fn decimal_text(bytes: &[u8], scale: usize) -> Result<String, String> {
    if bytes.len() > DECIMAL_BYTES_MAX || scale > DECIMAL_BYTES_MAX * 3 {
        return Err(format!("has a decimal of {} bytes, {DECIMAL_BYTES_MAX} at most", bytes.len()));
    }
    let is_negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut digits = vec![0_u8];
    // The complement of a negative number is one less than its amount.
    let magnitude = bytes.iter().map(|byte| if is_negative { !byte } else { *byte });
    for byte in magnitude {
        add(&mut digits, 256, u32::from(byte));
    }
    if is_negative {
        add(&mut digits, 1, 1);
    }
    while digits.len() <= scale {
        digits.push(0);
    }
    let mut text: String = digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect();
    if scale > 0 {
        text.insert(text.len() - scale, '.');
    }
    Ok(if is_negative { format!("-{text}") } else { text })
}

/// Multiplies and adds, the least significant digit first.
fn add(digits: &mut Vec<u8>, factor: u32, more: u32) {
    let mut carry = more;
    for digit in digits.iter_mut() {
        carry += u32::from(*digit) * factor;
        *digit = (carry % 10) as u8;
        carry /= 10;
    }
    while carry > 0 {
        digits.push((carry % 10) as u8);
        carry /= 10;
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::Decimal;
    use apache_avro::writer::datum::GenericDatumWriter;
    use serde_json::json;

    use super::*;
    use crate::{DecodeError, Schemas, decode_any};

    const SHOP: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
        {"name":"id","type":{"type":"string","logicalType":"uuid"}},
        {"name":"total","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"note","type":["null","string"]},
        {"name":"from","type":{"type":"record","name":"Address","fields":[{"name":"town","type":"string"}]}},
        {"name":"to","type":["null","Address"]},
        {"name":"tags","type":{"type":"map","values":"double"}},
        {"name":"state","type":{"type":"enum","name":"State","symbols":["NEW","PAID"]}},
        {"name":"raw","type":{"type":"fixed","name":"Raw","size":2}}]}"#;

    fn framed(id: u32, datum: &[u8]) -> Vec<u8> {
        [&[0][..], &id.to_be_bytes(), datum].concat()
    }

    #[test]
    fn a_record_of_others_is_json_as_its_schema_names_it() {
        let schema = Schema::parse_str(SHOP).unwrap();
        let address = |town: &str| Avro::Record(vec![("town".into(), Avro::String(town.into()))]);
        let record = Avro::Record(vec![
            ("id".into(), Avro::Uuid("0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".parse().unwrap())),
            ("total".into(), Avro::Decimal(Decimal::from(&[0xfb, 0x2e][..]))),
            ("at".into(), Avro::TimestampMillis(1_798_761_600_000)),
            ("note".into(), Avro::Union(1, Box::new(Avro::String("a".into())))),
            ("from".into(), address("Kiel")),
            ("to".into(), Avro::Union(1, Box::new(address("Bonn")))),
            (
                "tags".into(),
                Avro::Map([("b".to_owned(), Avro::Double(0.5)), ("a".to_owned(), Avro::Double(2.0))].into()),
            ),
            ("state".into(), Avro::Enum(1, "PAID".into())),
            ("raw".into(), Avro::Fixed(2, vec![1, 255])),
        ]);
        let mut datum = Vec::new();
        GenericDatumWriter::builder(&schema).build().unwrap().write_value(&mut datum, record).unwrap();
        let schemas = Schemas::new();
        assert!(matches!(decode_any(&schemas, &framed(7, &datum)), Err(DecodeError::UnknownSchema(7))));
        schemas.insert(7, SHOP);
        assert_eq!(
            decode_any(&schemas, &framed(7, &datum)).unwrap(),
            json!({
                "id": "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d", "total": "-12.34", "at": 1_798_761_600_000_i64,
                "note": "a",
                "from": { "town": "Kiel" }, "to": { "town": "Bonn" }, "tags": { "a": 2.0, "b": 0.5 }, "state": "PAID",
                "raw": "Af8="
            })
        );
        let told = |bytes: &[u8]| decode_any(&schemas, bytes).unwrap_err().to_string();
        assert!(told(&framed(7, &datum[..datum.len() - 1])).contains("does not fit the datum"));
        assert!(told(&framed(7, &[&datum[..], b"x"].concat())).contains("leaves 1 bytes"));
        assert!(told(b"{}").contains("not framed Avro"));
    }

    #[test]
    fn decimals_are_texts_with_all_their_digits() {
        let text = |bytes: &[u8], scale| decimal_text(bytes, scale).unwrap();
        assert_eq!([text(&[], 0), text(&[0], 2), text(&[127], 0), text(&[0x80], 3)], ["0", "0.00", "127", "-0.128"]);
        assert_eq!(text(&[0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 0), u64::MAX.to_string());
        assert_eq!(text(&[0x80, 0, 0, 0, 0, 0, 0, 0], 0), i64::MIN.to_string());
        assert!(decimal_text(&[1; 65], 0).is_err());
    }

    #[test]
    fn schemas_by_which_a_few_bytes_would_take_all_memory_are_refused() {
        let schemas = Schemas::new();
        let own = r#"{"type":"record","name":"T","fields":[{"name":"next","type":["null","T"]}]}"#;
        for (id, schema, said) in [
            (1, own, "contains itself"),
            (2, r#"{"type":"array","items":"null"}"#, "items without bytes"),
            (3, r#"{"type":"fixed","name":"F","size":70000}"#, "`fixed` of 70000 bytes"),
            (4, r#"{"type":"fixed","name":"D","size":12,"logicalType":"duration"}"#, "duration"),
            (5, "{", "is no Avro schema"),
        ] {
            schemas.insert(id, schema);
            let told = decode_any(&schemas, &framed(id, &[0])).unwrap_err().to_string();
            assert!(told.starts_with(&format!("schema id {id} ")) && told.contains(said), "{told}");
        }
    }
}
