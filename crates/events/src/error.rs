//! Errors of reading and writing records.

use crate::schema::RecordKind;

/// The reason for which bytes are not the record that was expected.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The id is not known here: ask the registry, [`Schemas::insert`](crate::Schemas::insert) its answer, and try
    /// again. Every other error but [`DecodeError::Newer`] means that the record will never be readable: a dead letter.
    #[error("schema id {0} is not known")]
    UnknownSchema(u32),
    /// There are no bytes at all.
    #[error("the value is empty")]
    Empty,
    /// Not Confluent's framing.
    #[error("not framed Avro: want byte 0 and a schema id, not {0}")]
    NotFramed(String),
    /// The registry knows the id, but what it names is not the record that was expected.
    #[error("schema id {id} {reason}")]
    OtherSchema {
        /// The id.
        id: u32,
        /// The fault.
        reason: String,
    },
    /// The datum is cut off, or noise.
    #[error("the datum of {} is damaged: {reason}", kind.full_name())]
    Damaged {
        /// The expected record or value.
        kind: RecordKind,
        /// The codec's message.
        reason: String,
    },
    /// There are bytes after the datum.
    #[error("{0} bytes stand after the end of the datum")]
    TrailingBytes(usize),
    /// A later version has written it, and it holds what this version would lose or misunderstand. It is to be kept as
    /// it is, for a process that knows it.
    #[error("it is of a later version: {0}")]
    Newer(String),
    /// The datum is whole, but a field holds what it cannot mean.
    #[error("`{field}` cannot be {value:?}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
    },
}

impl DecodeError {
    pub(crate) fn field(field: &'static str, value: impl ToString) -> Self {
        Self::Field { field, value: value.to_string() }
    }
}

/// A value that its record cannot hold. It will fail again: the step that made it has failed for good.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The JSON nests deeper than readers accept.
    #[error("`{field}` nests deeper than {} levels", crate::limit::JSON_DEPTH_MAX)]
    TooDeep {
        /// The field of the record.
        field: &'static str,
    },
    /// A number beyond what Avro's `long` holds.
    #[error("`{field}` is {value}, beyond what the record can hold")]
    OutOfRange {
        /// The field of the record.
        field: &'static str,
        /// The expected record or value.
        value: u64,
    },
    /// The codec refused: our types and our schema disagree.
    #[error("cannot be written as {}", kind.full_name())]
    Codec {
        /// The record that was to be written.
        kind: RecordKind,
        /// The codec's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
