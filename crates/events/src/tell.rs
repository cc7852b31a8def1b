//! Records for a person: any of ours as JSON, whatever version wrote it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::decode::{DecodeError, Schemas};
use crate::schema::RecordKind;

/// The record as JSON, field by field as the schema names them. JSON that is kept as bytes is shown as what it is.
pub fn decode_json(schemas: &Schemas, kind: RecordKind, bytes: &[u8]) -> Result<Value, DecodeError> {
    schemas.datum::<Told>(kind, bytes).map(|told| told.0)
}

struct Told(Value);

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Listener)
    }
}

/// A field's name.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(Name(name.to_owned()))
            }
        }
        deserializer.deserialize_identifier(Reader)
    }
}

struct Listener;

impl<'de> Visitor<'de> for Listener {
    type Value = Told;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any Avro value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Told, E> {
        Ok(Told(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Told, E> {
        Ok(Told(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Told, E> {
        Ok(Told(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Told, E> {
        Ok(Told(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Told, E> {
        Ok(Told(value.into()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Told, E> {
        let json = serde_json::from_slice(value);
        Ok(Told(json.unwrap_or_else(|_| Value::from(format!("{} bytes", value.len())))))
    }

    fn visit_unit<E>(self) -> Result<Told, E> {
        Ok(Told(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Told, E> {
        Ok(Told(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Told, D::Error> {
        Told::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Told, D::Error> {
        Told::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Told, A::Error> {
        let mut list = Vec::new();
        while let Some(Told(entry)) = sequence.next_element()? {
            list.push(entry);
        }
        Ok(Told(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Told, A::Error> {
        let mut map = Map::new();
        while let Some((Name(name), Told(value))) = entries.next_entry()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a field stands twice"));
            }
        }
        Ok(Told(Value::Object(map)))
    }
}
