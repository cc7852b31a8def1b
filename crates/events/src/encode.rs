//! From the domain to bytes: Avro in Confluent framing (byte 0, schema id as a big-endian int32, datum).

use flow::event::JobEvent;
use flow::slip::Slip;
use serde::Serialize;

use crate::audit::{AuditEntry, AuditEntryWire};
use crate::cancel::{Cancel, CancelWire};
use crate::error::EncodeError;
use crate::event::EventWire;
use crate::progress::{Progress, ProgressWire};
use crate::schema::{RecordKind, WriterIds};
use crate::slip::SlipWire;
use crate::wait::{Wait, WaitWire};

/// The first byte of every framed record.
pub const MAGIC: u8 = 0;
/// Bytes before the datum.
pub const FRAME_BYTES: usize = 5;

/// A slip as its topic has it.
pub fn encode_slip(ids: &WriterIds, slip: &Slip) -> Result<Vec<u8>, EncodeError> {
    frame(ids, RecordKind::Slip, &SlipWire::try_from(slip)?)
}

/// An event as its topic has it.
pub fn encode_event(ids: &WriterIds, event: &JobEvent) -> Result<Vec<u8>, EncodeError> {
    frame(ids, RecordKind::JobEvent, &EventWire::try_from(event)?)
}

/// A record of `meanwhile.waits` as the topic has it.
pub fn encode_wait(ids: &WriterIds, wait: &Wait) -> Result<Vec<u8>, EncodeError> {
    let slip = wait.hold().map(|hold| encode_slip(ids, &hold.slip)).transpose()?;
    frame(ids, RecordKind::Wait, &WaitWire::new(wait, slip)?)
}

/// A cancel as its topic has it.
pub fn encode_cancel(ids: &WriterIds, cancel: &Cancel) -> Result<Vec<u8>, EncodeError> {
    frame(ids, RecordKind::Cancel, &CancelWire::from(cancel))
}

/// A progress as its topic has it.
pub fn encode_progress(ids: &WriterIds, progress: &Progress) -> Result<Vec<u8>, EncodeError> {
    frame(ids, RecordKind::Progress, &ProgressWire::try_from(progress)?)
}

/// An entry of the audit log as its topic has it.
pub fn encode_audit_entry(ids: &WriterIds, entry: &AuditEntry) -> Result<Vec<u8>, EncodeError> {
    frame(ids, RecordKind::AuditEntry, &AuditEntryWire::from(entry))
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
