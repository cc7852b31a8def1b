//! From the domain to bytes: Avro in Confluent framing (byte 0, schema id as a big-endian int32, datum).

use flow::event::JobEvent;
use flow::slip::Slip;
use serde::Serialize;

use crate::cancel::{Cancel, CancelWire};
use crate::event::EventWire;
use crate::progress::{Progress, ProgressWire};
use crate::schema::{RecordKind, WriterIds};
use crate::slip::SlipWire;
use crate::wait::{Wait, WaitWire};

/// The first byte of every framed record.
pub const MAGIC: u8 = 0;
/// Bytes before the datum.
pub const FRAME_BYTES: usize = 5;

/// A value that its record cannot hold. It will fail again: the step that made it has failed for good.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The JSON nests deeper than anybody reads.
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
        /// What it was to be.
        value: u64,
    },
    /// The codec refused: our types and our schema disagree.
    #[error("cannot be written as {}", kind.full_name())]
    Codec {
        /// What was to be written.
        kind: RecordKind,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A slip as its topic has it.
pub fn encode_slip(ids: &WriterIds, slip: &Slip) -> Result<Vec<u8>, EncodeError> {
    frame(ids, RecordKind::Slip, &SlipWire::try_from(slip)?)
}

/// An event as its topic has it.
pub fn encode_event(ids: &WriterIds, event: &JobEvent) -> Result<Vec<u8>, EncodeError> {
    frame(ids, RecordKind::JobEvent, &EventWire::try_from(event)?)
}

/// A hold or a signal as its topic has it.
pub fn encode_wait(ids: &WriterIds, wait: &Wait) -> Result<Vec<u8>, EncodeError> {
    frame(ids, RecordKind::Wait, &WaitWire::new(ids, wait)?)
}

/// A cancel as its topic has it.
pub fn encode_cancel(ids: &WriterIds, cancel: &Cancel) -> Result<Vec<u8>, EncodeError> {
    frame(ids, RecordKind::Cancel, &CancelWire::from(cancel))
}

/// A progress as its topic has it.
pub fn encode_progress(ids: &WriterIds, progress: &Progress) -> Result<Vec<u8>, EncodeError> {
    frame(ids, RecordKind::Progress, &ProgressWire::try_from(progress)?)
}

/// A guess that spares most records a second allocation.
const CAPACITY_BYTES: usize = 512;

fn frame(ids: &WriterIds, kind: RecordKind, wire: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::with_capacity(CAPACITY_BYTES);
    bytes.push(MAGIC);
    bytes.extend_from_slice(&ids.of(kind).to_be_bytes());
    kind.writer().write_ser(&mut bytes, wire).map_err(|error| EncodeError::Codec { kind, source: Box::new(error) })?;
    Ok(bytes)
}

/// Avro's numbers are signed.
pub(crate) fn long(field: &'static str, value: u64) -> Result<i64, EncodeError> {
    i64::try_from(value).map_err(|_| EncodeError::OutOfRange { field, value })
}
