//! Kafka records as bytes: on their way out, as producers and the outbox take them, and as they were consumed.

use crate::headers::Headers;

/// One record to be produced. It is encoded already, so that its holder need not know its content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The topic's full name.
    pub topic: String,
    /// The key, from which the partition follows (murmur2). None only where the original of a dead letter had none.
    pub key: Option<Vec<u8>>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order. A name stands once, except in dead letters, which keep what they had.
    pub headers: Headers,
}

impl Record {
    /// The record's size on the wire, at most: key, value and headers with their frames, in bytes.
    pub fn size_bytes(&self) -> usize {
        size_bytes(self.key.as_deref(), self.value.as_deref(), &self.headers)
    }

    /// The last header of that name (docs/contract.md, Kafka: the last one counts), unless it has no value.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.last(name)
    }
}

/// One record as it was consumed, owned, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inbound {
    /// The topic that it was read from.
    pub topic: String,
    /// The partition that it was read from.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// The record's timestamp, milliseconds since the Unix epoch; 0 when the broker gave none.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order, repeated names and absent values included.
    pub headers: Headers,
}

impl Inbound {
    /// The record's size on the wire, at most: key, value and headers with their frames, in bytes.
    pub fn size_bytes(&self) -> usize {
        size_bytes(self.key.as_deref(), self.value.as_deref(), &self.headers)
    }

    /// The last header of that name (docs/contract.md, Kafka: the last one counts), unless it has no value.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.last(name)
    }

    /// The same as text; none also when it is not UTF-8.
    pub fn header_text(&self, name: &str) -> Option<&str> {
        self.header(name).and_then(|value| std::str::from_utf8(value).ok())
    }
}

/// Frame bytes per record (KIP-98: lengths, attributes, deltas; all varints, at their longest).
const RECORD_FRAME_BYTES: usize = 32;
/// Frame bytes per header: two varint lengths, at their longest.
const HEADER_FRAME_BYTES: usize = 10;

fn size_bytes(key: Option<&[u8]>, value: Option<&[u8]>, headers: &Headers) -> usize {
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers = headers.content_bytes() + headers.len() * HEADER_FRAME_BYTES;
    RECORD_FRAME_BYTES + length(key) + length(value) + headers
}
