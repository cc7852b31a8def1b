//! Records that tails and tables hand over together.

use crate::Inbound;

/// Batches that may wait for the reader before the consumer stops fetching.
pub(crate) const BATCHES_MAX: usize = 16;
/// Records in one batch.
const RECORDS_MAX: usize = 500;
/// Bytes in one batch, but for its last record.
const BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Batch {
    records: Vec<Inbound>,
    bytes: usize,
}

impl Batch {
    /// True if the batch is full with this record.
    pub(crate) fn push(&mut self, record: Inbound) -> bool {
        self.bytes += record.size_bytes();
        self.records.push(record);
        self.records.len() >= RECORDS_MAX || self.bytes >= BYTES_MAX
    }

    /// What is in it; none when that is nothing.
    pub(crate) fn take(&mut self) -> Option<Vec<Inbound>> {
        let Self { records, .. } = std::mem::take(self);
        (!records.is_empty()).then_some(records)
    }
}
