//! A row of `outbox.messages` as it comes over the stream, and the record that it is.
//!
//! Columns are found by name, so that the table may gain some. Each value is copied once, from the stream's buffer into
//! the record.

use events::Record;
use events::headers::Headers;
use store::unrelayed::Origin;

use crate::pgoutput::{Message, MessageError, Relations, Tuple, Value};

const SCHEMA: &str = "outbox";
const TABLE: &str = "messages";

/// The stream carries something that is not an outbox row as this version knows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowError {
    /// Not pgoutput.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The table lacks a column: a newer or older schema.
    #[error("outbox.messages has no column `{0}`; run `meanwhile migrate` with this version")]
    ColumnMissing(&'static str),
    /// A column that must have a value has none, or not of the form that it should have.
    #[error("outbox.messages.{0} holds what this version cannot read")]
    Unreadable(&'static str),
}

/// The places of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Columns {
    created_at: usize,
    txid: usize,
    topic: usize,
    key: usize,
    value: usize,
    headers: usize,
}

/// Reads the stream's change messages.
#[derive(Debug, Default)]
pub(crate) struct RowReader {
    relations: Relations<Columns>,
}

impl RowReader {
    /// The record of an outbox row, and who wrote it; none when the message is anything else.
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Option<(Origin, Record)>, RowError> {
        match self.relations.read(message, Columns::plan)? {
            Message::Insert(columns, tuple) => columns.record(tuple).map(Some),
            Message::Other => Ok(None),
        }
    }
}

impl Columns {
    fn plan(schema: &str, table: &str, names: &[&str]) -> Result<Option<Self>, RowError> {
        if (schema, table) != (SCHEMA, TABLE) {
            return Ok(None);
        }
        let find =
            |name: &'static str| names.iter().position(|known| *known == name).ok_or(RowError::ColumnMissing(name));
        Ok(Some(Self {
            created_at: find("created_at")?,
            txid: find("txid")?,
            topic: find("topic")?,
            key: find("key")?,
            value: find("value")?,
            headers: find("headers")?,
        }))
    }

    fn record(&self, tuple: Tuple<'_>) -> Result<(Origin, Record), RowError> {
        let (mut created_at, mut txid) = (Value::Null, Value::Null);
        let (mut topic, mut key, mut value, mut headers) = (Value::Null, Value::Null, Value::Null, Value::Null);
        for (index, column) in tuple.enumerate() {
            let column = column?;
            match index {
                _ if index == self.created_at => created_at = column,
                _ if index == self.txid => txid = column,
                _ if index == self.topic => topic = column,
                _ if index == self.key => key = column,
                _ if index == self.value => value = column,
                _ if index == self.headers => headers = column,
                _ => {}
            }
        }
        let (Value::Text(topic) | Value::Binary(topic)) = topic else { return Err(RowError::Unreadable("topic")) };
        let Value::Binary(headers) = headers else { return Err(RowError::Unreadable("headers")) };
        let origin = Origin {
            txid: u64::from_be_bytes(eight("txid", txid)?),
            began_micros: i64::from_be_bytes(eight("created_at", created_at)?),
        };
        let record = Record {
            topic: str::from_utf8(topic).map_err(|_| RowError::Unreadable("topic"))?.to_owned(),
            key: bytes("key", key)?,
            value: bytes("value", value)?,
            headers: Headers::read(headers.to_vec()).map_err(|_| RowError::Unreadable("headers"))?,
        };
        Ok((origin, record))
    }
}

/// An `xid8` or a `timestamptz` in binary form.
fn eight(column: &'static str, value: Value<'_>) -> Result<[u8; 8], RowError> {
    let Value::Binary(value) = value else { return Err(RowError::Unreadable(column)) };
    value.try_into().map_err(|_| RowError::Unreadable(column))
}

/// A `bytea`: its text form is an escape, so only the binary one is taken.
fn bytes(column: &'static str, value: Value<'_>) -> Result<Option<Vec<u8>>, RowError> {
    match value {
        Value::Null => Ok(None),
        Value::Binary(value) => Ok(Some(value.to_vec())),
        Value::Text(_) => Err(RowError::Unreadable(column)),
    }
}
