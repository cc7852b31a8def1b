//! The contracts on Kafka: records, topics, headers, and their encoding.
//!
//! Slips, events, waits, cancels, progress and the audit log are Avro in Confluent framing (`schemas/`); commands,
//! flows, lanes, breakers and the relay's position are JSON; dead letters are whatever they were. Everything here is a
//! pure function of its arguments.
//!
//! Invariant: no bytes from outside make anything here panic, recurse or allocate without bound.
//! Invariant: no type here knows Kafka's client, the registry or Postgres.

#![warn(missing_docs)]

pub mod asyncapi;
pub mod audit;
pub mod breaker;
pub mod cancel;
pub mod command;
pub mod compose;
pub mod dead_letter;
pub mod decode;
pub mod encode;
pub mod error;
mod event;
mod field;
pub mod finished;
pub mod flow_document;
mod foreign;
pub mod header;
pub mod headers;
mod json;
pub mod lane;
mod later;
pub mod limit;
pub mod place;
pub mod position;
pub mod progress;
pub mod record;
pub mod release;
pub mod rest;
pub mod schema;
mod slip;
mod to_json;
pub mod topic;
pub mod trace;
pub mod wait;
mod writer;

pub use compose::{
    audit_record, cancel_record, cancel_tombstone, event_record, flow_record, flow_tombstone, progress_record,
    slip_record, wait_record,
};
pub use decode::{
    Schemas, decode_any, decode_audit_entry, decode_cancel, decode_event, decode_json, decode_progress, decode_slip,
    decode_wait, decode_wait_and_slip, peek_slip, unframe,
};
pub use encode::{encode_audit_entry, encode_cancel, encode_event, encode_progress, encode_slip, encode_wait};
pub use error::{DecodeError, EncodeError};
pub use field::FEATURES;
pub use flow::time;
pub use headers::Headers;
pub use record::{Inbound, Record};
pub use schema::{RecordKind, WriterIds};
pub use writer::Writer;
