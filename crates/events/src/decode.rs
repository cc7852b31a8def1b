//! From bytes to the domain. Any bytes give a value or a reason; nothing panics, nothing is
//! allocated beyond [`limit::DECODE_ALLOCATION_BYTES_MAX`](crate::limit::DECODE_ALLOCATION_BYTES_MAX) at once.
//!
//! Fields are matched by name between the schema that wrote a record and ours: an unknown field is read and dropped
//! (slips and waits are refused as [`DecodeError::Newer`] if it is set), a missing one takes its default, as Avro's
//! schema resolution has it. Only schemas that our rules of evolution allow are accepted (see `readable`), so nothing
//! else of that resolution is needed.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema_compatibility::SchemaCompatibility;
use flow::event::JobEvent;
use flow::slip::Slip;
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::audit::{AuditEntry, AuditEntryWire};
use crate::cancel::{Cancel, CancelWire};
use crate::encode::{FRAME_BYTES, MAGIC};
use crate::error::DecodeError;
use crate::event::EventWire;
use crate::foreign::Foreign;
use crate::later::{self, LaterField};
use crate::limit::{DECODE_ALLOCATION_BYTES_MAX, SCHEMAS_MAX};
use crate::progress::{Progress, ProgressWire};
use crate::schema::{KINDS, RecordKind};
use crate::slip::SlipWire;
use crate::to_json::Json;
use crate::wait::{Wait, WaitWire};

/// The schemas that records were written with, by id. They never change and are few, so they are kept for the life of
/// the process. Shared by reference among all who decode; never waits for the network.
pub struct Schemas {
    known: RwLock<HashMap<u32, Arc<Known>>>,
    /// Ids say nothing: see [`Schemas::published`].
    by_published: bool,
}

enum Known {
    /// `later`: the fields that only a later version of ours knows.
    Readable { kind: RecordKind, reader: GenericDatumReader<'static>, later: Vec<LaterField> },
    /// None of ours; the reason continues the sentence "schema id 7 ...".
    Other { reason: String, foreign: Result<Box<Foreign>, String> },
}

impl Default for Schemas {
    fn default() -> Self {
        Self::new()
    }
}

impl Schemas {
    /// Knows nothing yet.
    pub fn new() -> Self {
        apache_avro::util::max_allocation_bytes(DECODE_ALLOCATION_BYTES_MAX);
        Self { known: RwLock::default(), by_published: false }
    }

    /// Reads a record by our own published schemas, whatever id it names: for a registry that has lost its content, or
    /// gives the ids of old records to other schemas now. The record is read by a version that uses all of its bytes;
    /// since versions differ in the fields at their end, there is one at most.
    pub fn published() -> Self {
        Self { by_published: true, ..Self::new() }
    }

    /// Learns the registry's answer for an id. A schema that is no Avro, or none of ours, is learnt too: records that
    /// name it are then refused, with the reason, without asking again. The first answer for an id stays.
    pub fn insert(&self, id: u32, schema_json: &str) {
        if self.contains(id) {
            return;
        }
        let known = readable(schema_json).unwrap_or_else(|reason| {
            let foreign = Foreign::of(schema_json).map(Box::new);
            Known::Other { reason, foreign }
        });
        let mut map = self.known.write();
        if map.len() < SCHEMAS_MAX {
            map.entry(id).or_insert_with(|| Arc::new(known));
        } else {
            let reason = format!("is one more than the {SCHEMAS_MAX} that are kept");
            map.insert(id, Arc::new(Known::Other { foreign: Err(reason.clone()), reason }));
        }
    }

    /// True when the id need not be asked for.
    pub fn contains(&self, id: u32) -> bool {
        self.known.read().contains_key(&id)
    }

    /// Learns our own latest schemas under the ids that the registry gave them.
    pub fn insert_writers(&self, ids: &crate::schema::WriterIds) {
        for kind in RecordKind::ALL {
            self.insert(ids.of(kind), kind.latest());
        }
    }

    fn known(&self, id: u32) -> Option<Arc<Known>> {
        self.known.read().get(&id).cloned()
    }

    pub(crate) fn datum<W: DeserializeOwned>(&self, kind: RecordKind, bytes: &[u8]) -> Result<W, DecodeError> {
        let (id, datum) = unframe(bytes)?;
        if self.by_published {
            let mut published = published(kind).iter().rev();
            let found = published.find_map(|reader| whole(reader, kind, datum).ok());
            return found.ok_or(DecodeError::UnknownSchema(id));
        }
        let known = self.known(id).ok_or(DecodeError::UnknownSchema(id))?;
        let other = |reason: String| DecodeError::OtherSchema { id, reason };
        let reader = match &*known {
            Known::Other { reason, .. } => return Err(other(reason.clone())),
            Known::Readable { kind: found, .. } if *found != kind => {
                return Err(other(format!("is {}, not {}", found.full_name(), kind.full_name())));
            }
            Known::Readable { reader, .. } => reader,
        };
        whole(reader, kind, datum)
    }

    /// The same, refused if a field is set that this version does not know: it would be lost, or overlooked.
    fn whole_datum<W: DeserializeOwned>(&self, kind: RecordKind, bytes: &[u8]) -> Result<W, DecodeError> {
        let wire = self.datum(kind, bytes)?;
        let known = unframe(bytes).ok().and_then(|(id, _)| self.known(id));
        if let Some(Known::Readable { later, .. }) = known.as_deref()
            && !later.is_empty()
        {
            let record = decode_json(self, kind, bytes)?;
            if let Some(field) = later.iter().find(|field| field.is_set(&record)) {
                return Err(DecodeError::Newer(format!("it has `{field}`")));
            }
        }
        Ok(wire)
    }
}

/// The record, if it is read to the last byte.
fn whole<W: DeserializeOwned>(
    reader: &GenericDatumReader<'static>,
    kind: RecordKind,
    mut datum: &[u8],
) -> Result<W, DecodeError> {
    let wire =
        reader.read_deser(&mut datum).map_err(|error| DecodeError::Damaged { kind, reason: error.to_string() })?;
    if datum.is_empty() { Ok(wire) } else { Err(DecodeError::TrailingBytes(datum.len())) }
}

/// The readers of our published schemas, from version 1 on.
fn published(kind: RecordKind) -> &'static [GenericDatumReader<'static>] {
    static READERS: LazyLock<[Vec<GenericDatumReader<'static>>; KINDS]> = LazyLock::new(|| {
        RecordKind::ALL.map(|kind| {
            let readers = kind.published().iter().map(|avsc| match readable(avsc) {
                Ok(Known::Readable { reader, .. }) => reader,
                Ok(Known::Other { reason, .. }) | Err(reason) => unreachable!("a published schema {reason}: tested"),
            });
            readers.collect()
        })
    });
    &READERS[kind as usize]
}

/// The schema id and the datum of a framed record.
pub fn unframe(bytes: &[u8]) -> Result<(u32, &[u8]), DecodeError> {
    match bytes {
        [] => Err(DecodeError::Empty),
        [MAGIC, a, b, c, d, datum @ ..] => match i32::from_be_bytes([*a, *b, *c, *d]) {
            id @ 0.. => Ok((id.unsigned_abs(), datum)),
            id => Err(DecodeError::NotFramed(format!("a negative schema id ({id})"))),
        },
        [MAGIC, ..] => Err(DecodeError::NotFramed(format!("{} of {FRAME_BYTES} bytes", bytes.len()))),
        [first, ..] => Err(DecodeError::NotFramed(format!("byte {first}"))),
    }
}

/// A slip, to be taken by this version.
pub fn decode_slip(schemas: &Schemas, bytes: &[u8]) -> Result<Slip, DecodeError> {
    let wire = schemas.whole_datum::<SlipWire<'static>>(RecordKind::Slip, bytes)?;
    wire.check_features()?;
    wire.try_into()
}

/// What this version knows of a slip that a later one may have written. It must not be written again: something may be
/// missing.
pub fn peek_slip(schemas: &Schemas, bytes: &[u8]) -> Result<Slip, DecodeError> {
    schemas.datum::<SlipWire<'static>>(RecordKind::Slip, bytes)?.try_into()
}

/// An event.
pub fn decode_event(schemas: &Schemas, bytes: &[u8]) -> Result<JobEvent, DecodeError> {
    schemas.datum::<EventWire<'static>>(RecordKind::JobEvent, bytes)?.try_into()
}

/// A record of `meanwhile.waits`. The slip inside a hold has its own schema id, which may be unknown as well.
pub fn decode_wait(schemas: &Schemas, bytes: &[u8]) -> Result<Wait, DecodeError> {
    decode_wait_and_slip(schemas, bytes).map(|(wait, _)| wait)
}

/// The same, with the slip inside a hold as it is: whoever sends it on sends this. The slip in the [`Wait`] is what
/// this version knows of it.
pub fn decode_wait_and_slip(schemas: &Schemas, bytes: &[u8]) -> Result<(Wait, Option<Vec<u8>>), DecodeError> {
    let mut wire = schemas.whole_datum::<WaitWire<'static>>(RecordKind::Wait, bytes)?;
    wire.check_features()?;
    let bytes = wire.take_slip();
    let slip = bytes.as_deref().map(|bytes| peek_slip(schemas, bytes)).transpose()?;
    Ok((wire.into_wait(slip)?, bytes))
}

/// A cancel.
pub fn decode_cancel(schemas: &Schemas, bytes: &[u8]) -> Result<Cancel, DecodeError> {
    schemas.datum::<CancelWire<'static>>(RecordKind::Cancel, bytes)?.try_into()
}

/// A progress.
pub fn decode_progress(schemas: &Schemas, bytes: &[u8]) -> Result<Progress, DecodeError> {
    schemas.datum::<ProgressWire<'static>>(RecordKind::Progress, bytes)?.try_into()
}

/// An entry of the audit log.
pub fn decode_audit_entry(schemas: &Schemas, bytes: &[u8]) -> Result<AuditEntry, DecodeError> {
    schemas.datum::<AuditEntryWire<'static>>(RecordKind::AuditEntry, bytes)?.try_into()
}

/// The record as JSON, field by field as the schema names them. JSON that is kept as bytes is shown as JSON.
pub fn decode_json(schemas: &Schemas, kind: RecordKind, bytes: &[u8]) -> Result<Value, DecodeError> {
    schemas.datum::<Json>(kind, bytes).map(|json| json.0)
}

/// Any framed Avro record as JSON, also one of others: see `foreign`.
pub fn decode_any(schemas: &Schemas, bytes: &[u8]) -> Result<Value, DecodeError> {
    let (id, datum) = unframe(bytes)?;
    let known = schemas.known(id).ok_or(DecodeError::UnknownSchema(id))?;
    let foreign = match &*known {
        Known::Readable { kind, .. } => return decode_json(schemas, *kind, bytes),
        Known::Other { foreign, .. } => foreign,
    };
    let read = foreign.as_ref().map_err(Clone::clone).and_then(|foreign| foreign.read(datum));
    read.map_err(|reason| DecodeError::OtherSchema { id, reason })
}

/// Accepts one of our records in any published version, or one that a later version of ours may have: plain fields,
/// and ours can be read from it. The error continues the sentence "schema id 7 ...".
fn readable(schema_json: &str) -> Result<Known, String> {
    let schema = Schema::parse_str(schema_json).map_err(|error| format!("is no Avro schema: {error}"))?;
    let name = schema.name().map(ToString::to_string).unwrap_or_default();
    let kind = RecordKind::ALL
        .into_iter()
        .find(|kind| kind.full_name() == name)
        .ok_or_else(|| format!("is {name:?}, which is no record of ours"))?;
    if !is_plain(&schema, PLAIN_DEPTH_MAX) {
        return Err(format!("is a {name} with fields that no version of ours has"));
    }
    SchemaCompatibility::can_read(&schema, kind.parsed())
        .map_err(|error| format!("is a {name} that ours cannot be read from: {error}"))?;
    // Kept for the life of the process, at most SCHEMAS_MAX times: the reader borrows it.
    let schema: &'static Schema = Box::leak(Box::new(schema));
    let reader = GenericDatumReader::builder(schema).build().map_err(|error| format!("has a loose end: {error}"))?;
    let later = later::fields(schema, kind.parsed());
    Ok(Known::Readable { kind, reader, later })
}

/// A record of arrays of records of optional fields: the deepest that ours go is four.
const PLAIN_DEPTH_MAX: usize = 6;
/// A larger Avro `fixed` would be allocated before a byte of it is seen.
const FIXED_BYTES_MAX: usize = 64 * 1024;

/// No references (a datum could nest without end) and no items without bytes (a count could be without end).
fn is_plain(schema: &Schema, depth: usize) -> bool {
    let inner = |schema: &Schema| depth > 0 && is_plain(schema, depth - 1);
    match schema {
        Schema::Ref { .. } => false,
        Schema::Record(record) => record.fields.iter().all(|field| inner(&field.schema)),
        Schema::Array(array) => takes_bytes(&array.items) && inner(&array.items),
        Schema::Map(map) => inner(&map.types),
        Schema::Union(union) => union.variants().iter().all(inner),
        Schema::Fixed(fixed) => fixed.size <= FIXED_BYTES_MAX,
        Schema::Decimal(_) | Schema::BigDecimal | Schema::Duration(_) => false,
        _ => true,
    }
}

fn takes_bytes(schema: &Schema) -> bool {
    match schema {
        Schema::Null => false,
        Schema::Fixed(fixed) => fixed.size > 0,
        Schema::Record(record) => record.fields.iter().any(|field| takes_bytes(&field.schema)),
        _ => true,
    }
}
