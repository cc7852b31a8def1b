//! The pure part: the moves of stored offsets, and the division of a batch.

use bus::{PartitionRecords, RecordBatch};
use events::place::OffsetAdvance;

/// The moves of the stored offsets when this batch is applied.
pub(crate) fn advances(batch: &RecordBatch) -> Vec<OffsetAdvance> {
    let advance = |part: &PartitionRecords| OffsetAdvance {
        topic: part.topic.clone(),
        partition: part.partition,
        // A partition without a stored offset has position 0.
        expected: (part.first_offset > 0).then_some(part.first_offset),
        next: part.next_offset,
    };
    batch.parts.iter().map(advance).collect()
}

/// Two batches in place of one, in the order of each partition.
pub(crate) fn halve(batch: RecordBatch) -> (RecordBatch, RecordBatch) {
    let mut wanted = batch.len() / 2;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for mut part in batch.parts {
        if wanted >= part.records.len() {
            wanted -= part.records.len();
            first.push(part);
            continue;
        }
        let rest = part.records.split_off(wanted);
        wanted = 0;
        let middle = part.records.last().map_or(part.first_offset, |record| record.offset + 1);
        let (topic, partition) = (part.topic.clone(), part.partition);
        second.push(PartitionRecords {
            topic,
            partition,
            first_offset: middle,
            next_offset: part.next_offset,
            records: rest,
        });
        if !part.records.is_empty() {
            first.push(PartitionRecords { next_offset: middle, ..part });
        }
    }
    (RecordBatch { parts: first }, RecordBatch { parts: second })
}

#[cfg(test)]
mod tests {
    use events::Inbound;

    use super::*;

    fn part(partition: i32, offsets: &[i64]) -> PartitionRecords {
        let record = |offset: &i64| Inbound { partition, offset: *offset, ..Inbound::default() };
        PartitionRecords {
            topic: "t".to_owned(),
            partition,
            first_offset: offsets[0],
            next_offset: offsets[offsets.len() - 1] + 1,
            records: offsets.iter().map(record).collect(),
        }
    }

    #[test]
    fn halves_keep_every_record_and_their_offsets_meet() {
        let whole = RecordBatch { parts: vec![part(0, &[3, 5, 9]), part(1, &[0, 1])] };
        let (first, second) = halve(whole.clone());
        assert_eq!(first, RecordBatch { parts: vec![PartitionRecords { next_offset: 6, ..part(0, &[3, 5]) }] });
        assert_eq!(
            second,
            RecordBatch { parts: vec![PartitionRecords { first_offset: 6, ..part(0, &[9]) }, part(1, &[0, 1])] }
        );
        let (first, second) = halve(RecordBatch { parts: vec![part(0, &[7]), part(1, &[2])] });
        assert_eq!((first.parts[0].partition, second.parts[0].partition), (0, 1));
        assert_eq!((first.len(), second.len()), (1, 1));
    }
}
