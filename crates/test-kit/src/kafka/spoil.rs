//! Batches that nobody can read, as a broken disk or a foreign producer makes them: a broker sends what its file has.

use std::fs;
use std::ops::Range;

use anyhow::{Context, Result, bail};

use super::Kafka;

/// The frame before the part of a batch that its length counts: base offset and length (`RecordBatch` of Kafka).
const FRAME_BYTES: usize = 12;
/// The checksum's place; it is over all from the attributes on.
const CHECKSUM: Range<usize> = 17..21;
const ATTRIBUTES: usize = 22;
const LAST_OFFSET_DELTA: Range<usize> = 23..27;
/// The first record's length, where they are not compressed: a number of the kind that stores seven bits a byte.
const RECORDS: usize = 61;
/// Of the attributes: markers of transactions.
const IS_CONTROL: u8 = 0x20;
/// Of the attributes: a codec that there is not.
const NO_CODEC: u8 = 0x07;

impl Kafka {
    /// Spoils the last batch of records in the first segment of a partition of the first broker: it names a codec that
    /// nobody knows, and its checksum fits. Returns its offsets.
    pub fn spoil_last_batch(&self, topic: &str, partition: i32) -> Result<Range<i64>> {
        self.change_last_batch(topic, partition, |batch| {
            batch[ATTRIBUTES] |= NO_CODEC;
            renew_checksum(batch);
        })
    }

    /// Damages the last byte of that batch, and leaves its checksum as it was. Returns its offsets.
    pub fn damage_last_batch(&self, topic: &str, partition: i32) -> Result<Range<i64>> {
        self.change_last_batch(topic, partition, |batch| *batch.last_mut().expect("a batch has a head") ^= 0x40)
    }

    /// Lets the first record of that batch claim to be longer than the batch, as if the rest was cut off; its checksum
    /// fits. Returns its offsets.
    pub fn cut_last_batch_off(&self, topic: &str, partition: i32) -> Result<Range<i64>> {
        self.change_last_batch(topic, partition, |batch| {
            // The last byte of a number of one or two bytes; it holds the upper bits.
            let place = if batch[RECORDS] & 0x80 == 0 { RECORDS } else { RECORDS + 1 };
            batch[place] = 0x7e;
            renew_checksum(batch);
        })
    }

    /// Changes the last batch of records in the first segment of a partition of the first broker. Returns its offsets.
    fn change_last_batch(&self, topic: &str, partition: i32, change: impl FnOnce(&mut [u8])) -> Result<Range<i64>> {
        let segment = self._folder.path().join(format!("data-1/{topic}-{partition}/{:020}.log", 0));
        let mut log = fs::read(&segment).with_context(|| segment.display().to_string())?;
        let (mut start, mut last) = (0, None);
        while let Some(head) = log.get(start..start + ATTRIBUTES + 1) {
            let end = start + FRAME_BYTES + usize::try_from(number(&head[8..12])).context("a length")?;
            if end > log.len() || end <= start + LAST_OFFSET_DELTA.end {
                break;
            }
            if head[ATTRIBUTES] & IS_CONTROL == 0 {
                last = Some(start..end);
            }
            start = end;
        }
        let Some(place) = last else { bail!("{topic}[{partition}] has no batch") };
        let batch = &mut log[place.clone()];
        let base = number(&batch[..8]);
        change(batch);
        let end = base + number(&batch[LAST_OFFSET_DELTA]) + 1;
        // In place: the broker has the file open.
        let file = fs::OpenOptions::new().write(true).open(&segment)?;
        std::os::unix::fs::FileExt::write_all_at(&file, batch, place.start as u64)?;
        Ok(base..end)
    }
}

fn renew_checksum(batch: &mut [u8]) {
    let checksum = crc32c(&batch[CHECKSUM.end..]);
    batch[CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
}

/// Big-endian, of at most eight bytes.
fn number(bytes: &[u8]) -> i64 {
    bytes.iter().fold(0, |number, byte| number << 8 | i64::from(*byte))
}

fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
    }
}
