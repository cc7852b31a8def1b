//! JSON inside an Avro record: `bytes` that hold it in UTF-8.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{self, Serialize, Serializer};
use serde_json::Value;

use crate::error::EncodeError;
use crate::limit::JSON_DEPTH_MAX;

/// A JSON value as Avro `bytes`. Its depth was checked: what is written can be read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Json<'a>(Cow<'a, Value>);

impl<'a> Json<'a> {
    pub(crate) fn borrowed(field: &'static str, value: &'a Value) -> Result<Self, EncodeError> {
        if nests_at_most(value, JSON_DEPTH_MAX) {
            Ok(Self(Cow::Borrowed(value)))
        } else {
            Err(EncodeError::TooDeep { field })
        }
    }

    pub(crate) fn owned(field: &'static str, value: Value) -> Result<Self, EncodeError> {
        if nests_at_most(&value, JSON_DEPTH_MAX) {
            Ok(Self(Cow::Owned(value)))
        } else {
            Err(EncodeError::TooDeep { field })
        }
    }

    pub(crate) fn optional(field: &'static str, value: Option<&'a Value>) -> Result<Option<Self>, EncodeError> {
        value.map(|value| Self::borrowed(field, value)).transpose()
    }

    pub(crate) fn into_value(self) -> Value {
        self.0.into_owned()
    }
}

fn nests_at_most(value: &Value, depth: usize) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        Value::Array(items) => depth > 0 && items.iter().all(|item| nests_at_most(item, depth - 1)),
        Value::Object(fields) => depth > 0 && fields.values().all(|item| nests_at_most(item, depth - 1)),
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&serde_json::to_vec(&*self.0).map_err(ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Json<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(JsonVisitor).map(|value| Self(Cow::Owned(value)))
    }
}

struct JsonVisitor;

impl Visitor<'_> for JsonVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON in UTF-8")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Value, E> {
        serde_json::from_slice(bytes).map_err(|error| E::custom(format!("not JSON: {error}")))
    }
}

/// Plain Avro `bytes`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BytesVisitor).map(Self)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }
}
