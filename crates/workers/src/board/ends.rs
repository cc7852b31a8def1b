//! The ends of partitions at their assignment, where they become known later.

use bus::TopicPartition;

use super::Board;
use crate::work::Epoch;

/// Stands for an end that is not known: every record may have been begun by another worker.
pub(crate) const END_UNKNOWN: i64 = i64::MAX;

impl Board {
    /// The partitions whose ends at their assignment are not known.
    pub(crate) fn unknown_ends(&self) -> Vec<(TopicPartition, Epoch)> {
        let unknown = self.partitions.iter().filter(|(_, partition)| partition.end_at_assignment == END_UNKNOWN);
        unknown.map(|(epoch, partition)| (partition.place.clone(), *epoch)).collect()
    }

    /// Learns the end of a partition, asked for under this epoch. Records beyond it are nobody's but ours.
    pub(crate) fn know_end(&mut self, epoch: Epoch, end: i64) {
        if let Some(partition) = self.partitions.get_mut(&epoch) {
            partition.end_at_assignment = partition.end_at_assignment.min(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use bus::Inbound;

    use super::*;
    use crate::load::Limits;

    fn redelivered(board: &mut Board, offset: i64) -> bool {
        let key = Some(offset.to_be_bytes().to_vec());
        let record = Inbound { topic: "t".to_owned(), partition: 0, offset, key, ..Inbound::default() };
        board.deliver(record).start.unwrap().redelivered
    }

    #[test]
    fn a_slip_beyond_an_end_that_becomes_known_later_was_begun_by_nobody() {
        let limits =
            Limits { queue_slips_max: 20, queue_bytes_max: 1 << 20, batch_results_max: 8, batch_bytes_max: 1 << 20 };
        let (mut board, place) = (Board::new(limits), TopicPartition::new("t", 0));
        board.assign(place.clone(), 5, "", END_UNKNOWN, Vec::new()).unwrap();
        assert!(redelivered(&mut board, 5), "its end is not known");
        let asked = board.unknown_ends();
        board.bar();
        board.revoke(&place);
        board.assign(place, 5, "", END_UNKNOWN, Vec::new()).unwrap();
        board.know_end(asked[0].1, 6);
        assert_eq!(board.unknown_ends().len(), 1, "another has begun some since the end was asked for");
        board.know_end(board.unknown_ends()[0].1, 8);
        assert!(redelivered(&mut board, 7) && !redelivered(&mut board, 8) && board.unknown_ends().is_empty());
    }
}
