//! A Kafka record on its way out, as producers and the outbox take it.

/// One record to be produced. Encoded already: whoever holds it need not know what it says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The topic's full name.
    pub topic: String,
    /// The key, from which the partition follows (murmur2).
    pub key: Vec<u8>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order. A name stands once, except in dead letters, which keep what they had.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// What the record takes on the wire, about: key, value and headers, in bytes.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + headers
    }

    /// The last header of that name (contract.md section 8: the last one counts).
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
    }
}
