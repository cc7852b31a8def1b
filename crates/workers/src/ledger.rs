//! The finished slips of one assigned partition, and the position to commit so that no worker runs them again.
//!
//! Slips finish out of order. A commit holds a position (all slips below it are finished) and, in its metadata, a
//! bitmap of the finished slips above it. The next owner of the partition reads both and skips the slips in the
//! bitmap: to run such a slip again would give its token two successors.
//!
//! Invariant: each slip of a committed transaction is below the committed position or in its bitmap.

use std::collections::{BTreeSet, VecDeque};

use events::finished;
pub(crate) use events::finished::{UnknownMetadata, WINDOW_OFFSETS};

/// The treatment of a delivered record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It is to be run.
    Fresh,
    /// It was finished under an earlier assignment: skip it.
    Finished,
    /// It was delivered before under this assignment: ignore it.
    Repeated,
}

/// The offset and metadata to commit for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    /// The first record in flight, else one above the last delivered one.
    pub(crate) offset: i64,
    /// The bitmap of the finished slips from there on; empty when there are none.
    pub(crate) metadata: String,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: i64,
    written_at_ms: i64,
    finished: bool,
}

/// The account of one partition under one assignment.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// One above the highest offset delivered; at first the committed offset.
    next: i64,
    /// Delivered offsets in order, from the first that is not finished by a committed transaction.
    entries: VecDeque<Entry>,
    /// Finished under earlier assignments and not yet delivered again.
    restored: BTreeSet<i64>,
}

impl Ledger {
    /// Starts from the last commit.
    pub(crate) fn restore(offset: i64, metadata: &str) -> Result<Self, UnknownMetadata> {
        Ok(Self { next: offset, entries: VecDeque::new(), restored: finished::decode(offset, metadata)? })
    }

    /// Notes that a record was delivered. Offsets come in ascending order, with gaps (transaction markers).
    pub(crate) fn deliver(&mut self, offset: i64, written_at_ms: i64) -> Delivery {
        if offset < self.next {
            return Delivery::Repeated;
        }
        self.next = offset + 1;
        let finished = self.restored.remove(&offset);
        while self.restored.first().is_some_and(|first| *first < offset) {
            self.restored.pop_first();
        }
        self.entries.push_back(Entry { offset, written_at_ms, finished });
        if finished { Delivery::Finished } else { Delivery::Fresh }
    }

    /// True if the bitmap can still name this offset. A result that does not fit must wait until the position moves.
    pub(crate) fn fits(&self, offset: i64) -> bool {
        let near = |from: i64| offset - from < WINDOW_OFFSETS;
        self.entries.front().is_some_and(|entry| near(entry.offset)) || near(self.position())
    }

    /// Counts a delivered offset as finished: its results are in the transaction that is being built.
    pub(crate) fn finish(&mut self, offset: i64) {
        self.set(offset, true);
    }

    /// Takes [`Ledger::finish`] back: the transaction was aborted.
    pub(crate) fn reopen(&mut self, offset: i64) {
        self.set(offset, false);
    }

    fn set(&mut self, offset: i64, finished: bool) {
        let found = self.entries.binary_search_by_key(&offset, |entry| entry.offset);
        assert!(found.is_ok(), "offset {offset} was never delivered, or is committed already");
        if let Ok(index) = found {
            self.entries[index].finished = finished;
        }
    }

    /// Forgets the entries below the position: the transaction that holds the position has been committed.
    pub(crate) fn settle(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.finished) {
            self.entries.pop_front();
        }
    }

    /// The count of offsets from the position to the last delivered one.
    pub(crate) fn span(&self) -> i64 {
        self.next - self.position()
    }

    /// An upper bound of [`Ledger::span`] that needs no search.
    pub(crate) fn span_at_most(&self) -> i64 {
        self.next - self.entries.front().map_or(self.next, |entry| entry.offset)
    }

    /// The time at which the oldest slip in flight was written, in milliseconds since the Unix epoch.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        self.entries.iter().find(|entry| !entry.finished).map(|entry| entry.written_at_ms)
    }

    fn position(&self) -> i64 {
        self.entries.iter().find(|entry| !entry.finished).map_or(self.next, |entry| entry.offset)
    }

    /// The position to commit now.
    pub(crate) fn commit_position(&self) -> Position {
        let offset = self.position();
        let delivered = self.entries.iter().filter(|entry| entry.finished).map(|entry| entry.offset);
        let finished = delivered.chain(self.restored.iter().copied()).filter(|finished| *finished >= offset);
        let metadata = finished::encode(offset, finished);
        Position { offset, metadata }
    }
}

#[cfg(test)]
mod tests {
    use events::finished::{METADATA_BYTES_MAX, decode};
    use proptest::prelude::*;

    use super::*;

    fn ledger(offsets: &[i64]) -> Ledger {
        let mut ledger = Ledger::restore(offsets[0], "").unwrap();
        for offset in offsets {
            assert_eq!(ledger.deliver(*offset, 0), Delivery::Fresh);
        }
        ledger
    }

    #[test]
    fn the_position_is_the_first_offset_in_flight_else_one_above_the_last_delivered() {
        let mut ledger = ledger(&[10, 11, 15]);
        assert_eq!(ledger.commit_position(), Position { offset: 10, metadata: String::new() });
        ledger.finish(10);
        assert_eq!(ledger.commit_position().offset, 11);
        ledger.finish(11);
        assert_eq!(ledger.commit_position().offset, 15, "the gap holds no record of ours");
        ledger.finish(15);
        assert_eq!(ledger.commit_position(), Position { offset: 16, metadata: String::new() });
    }

    #[test]
    fn what_finished_above_the_position_is_skipped_by_the_next_owner() {
        let mut first = ledger(&[10, 11, 12, 13, 30]);
        first.finish(12);
        first.finish(30);
        let position = first.commit_position();
        assert_eq!(position.offset, 10);

        let mut next = Ledger::restore(position.offset, &position.metadata).unwrap();
        assert_eq!(next.commit_position(), position, "nothing delivered yet, nothing forgotten");
        let deliveries: Vec<_> = [10, 11, 12, 13, 30, 31].map(|offset| next.deliver(offset, 0)).into();
        use Delivery::{Finished, Fresh};
        assert_eq!(deliveries, [Fresh, Fresh, Finished, Fresh, Finished, Fresh]);
        assert_eq!(next.deliver(13, 0), Delivery::Repeated);
    }

    #[test]
    fn an_aborted_transaction_takes_its_finishes_back() {
        let mut ledger = ledger(&[0, 1, 2]);
        ledger.finish(0);
        ledger.finish(1);
        ledger.reopen(0);
        let position = ledger.commit_position();
        assert_eq!(position.offset, 0);
        assert_eq!(decode(0, &position.metadata).unwrap(), BTreeSet::from([1]));
    }

    #[test]
    fn the_largest_bitmap_fits_and_nothing_beyond_it_is_let_in() {
        let mut ledger = Ledger::restore(5, "").unwrap();
        for offset in 5..=5 + WINDOW_OFFSETS {
            ledger.deliver(offset, 0);
        }
        assert!(ledger.fits(5 + WINDOW_OFFSETS - 1) && !ledger.fits(5 + WINDOW_OFFSETS));
        for offset in 6..5 + WINDOW_OFFSETS {
            ledger.finish(offset);
        }
        let position = ledger.commit_position();
        assert!(position.metadata.len() <= METADATA_BYTES_MAX && position.metadata.len() > METADATA_BYTES_MAX - 4);
        assert_eq!(decode(5, &position.metadata).unwrap().len() as i64, WINDOW_OFFSETS - 1);
    }

    #[test]
    fn metadata_of_another_version_is_refused_not_ignored() {
        for metadata in ["m2:AAAA", "hello", "m1:***"] {
            assert!(Ledger::restore(0, metadata).is_err(), "{metadata}");
        }
    }

    proptest! {
        /// However finishes, commits, aborts and changes of owner mix: each record is finished by exactly one commit.
        #[test]
        fn each_record_is_finished_exactly_once(
            gaps in proptest::collection::vec(1_i64..4, 1..60),
            choices in proptest::collection::vec((0_u8..8, any::<u16>()), 1..400),
        ) {
            let log: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut committed = Position { offset: 0, metadata: String::new() };
            let mut finished_by_commit = BTreeSet::new();
            let mut ledger = Ledger::restore(0, "").unwrap();
            let (mut delivered, mut in_flight, mut staged) = (0, Vec::new(), Vec::new());
            let finale = (0..log.len() as u16 + 2).flat_map(|_| [(0, 0), (2, 0), (4, 0)]);
            for (choice, pick) in choices.into_iter().chain(finale) {
                match choice {
                    0 | 1 => if let Some(offset) = log.get(delivered) {
                        delivered += 1;
                        if *offset >= committed.offset && ledger.deliver(*offset, 0) == Delivery::Fresh {
                            in_flight.push(*offset);
                        }
                    },
                    2 | 3 => if !in_flight.is_empty() {
                        let offset = in_flight.remove(pick as usize % in_flight.len());
                        ledger.finish(offset);
                        staged.push(offset);
                    },
                    4 | 5 => {
                        committed = ledger.commit_position();
                        ledger.settle();
                        for offset in staged.drain(..) {
                            prop_assert!(finished_by_commit.insert(offset), "{offset} finished twice");
                        }
                    }
                    6 => for offset in staged.drain(..) {
                        ledger.reopen(offset);
                        in_flight.push(offset);
                    },
                    _ => {
                        ledger = Ledger::restore(committed.offset, &committed.metadata).unwrap();
                        (delivered, in_flight, staged) = (0, Vec::new(), Vec::new());
                    }
                }
            }
            prop_assert_eq!(finished_by_commit, log.iter().copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(committed, Position { offset: log[log.len() - 1] + 1, metadata: String::new() });
        }
    }
}
