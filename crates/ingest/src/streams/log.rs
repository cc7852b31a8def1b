//! The latest events of all jobs, in the order in which the tail has seen them, bounded in bytes.
//!
//! Streams of all jobs read from it, each from its own place. One that falls behind its begin is too slow.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::cursor::Cursor;
use super::record::Seen;

/// Events that are read from the log at once.
const READ_MAX: usize = 256;

/// The place that a stream wanted to read is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overrun;

/// See the module.
#[derive(Default)]
pub(super) struct Log {
    records: VecDeque<Arc<Seen>>,
    /// The place of the first record; places count on.
    first: u64,
    bytes: usize,
    /// For each partition the offset from which on all events are here.
    floors: HashMap<i32, i64>,
    /// For each partition the offset behind the last event that was seen.
    position: Cursor,
}

impl Log {
    /// False for a repetition.
    pub(super) fn push(&mut self, seen: &Arc<Seen>, bytes_max: usize) -> bool {
        if seen.offset < self.position.next(seen.partition) {
            return false;
        }
        self.position.raise(seen.partition, seen.offset + 1);
        self.bytes += seen.bytes();
        self.records.push_back(Arc::clone(seen));
        while self.bytes > bytes_max && self.records.len() > 1 {
            let Some(oldest) = self.records.pop_front() else { break };
            self.first += 1;
            self.bytes -= oldest.bytes();
            self.raise_floor(oldest.partition, oldest.offset + 1);
        }
        true
    }

    /// The tail has begun here: events below are not known.
    pub(super) fn begun_at(&mut self, partition: i32, start: i64) {
        self.position.raise(partition, start);
        self.raise_floor(partition, start);
    }

    fn raise_floor(&mut self, partition: i32, floor: i64) {
        let known = self.floors.entry(partition).or_default();
        *known = (*known).max(floor);
    }

    /// The place from which on all events behind this cursor are here; none where some are not here any more.
    pub(super) fn place_of(&self, cursor: &Cursor) -> Option<u64> {
        let covers = self.floors.iter().all(|(partition, floor)| cursor.next(*partition) >= *floor);
        covers.then_some(self.first)
    }

    /// The place behind the last event, which is also told to those who wait.
    pub(super) fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// Behind all that was seen.
    pub(super) const fn position(&self) -> &Cursor {
        &self.position
    }

    /// The next events from a place on.
    pub(super) fn read(&self, place: &mut u64) -> Result<Vec<Arc<Seen>>, Overrun> {
        let skipped = place.checked_sub(self.first).ok_or(Overrun)?;
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(self.records.len());
        let read: Vec<Arc<Seen>> = self.records.range(skipped..).take(READ_MAX).cloned().collect();
        *place += read.len() as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use bus::Inbound;

    use super::*;

    fn seen(partition: i32, offset: i64) -> Arc<Seen> {
        let key = b"0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".to_vec();
        let record = Inbound { partition, offset, key: Some(key), value: Some(vec![0; 100]), ..Inbound::default() };
        Arc::new(Seen::of(&record).unwrap())
    }

    fn cursor(nexts: &[i64]) -> Cursor {
        let mut cursor = Cursor::default();
        (0..).zip(nexts).for_each(|(partition, next)| cursor.raise(partition, *next));
        cursor
    }

    fn offsets(read: &[Arc<Seen>]) -> Vec<(i32, i64)> {
        read.iter().map(|seen| (seen.partition, seen.offset)).collect()
    }

    #[test]
    fn a_log_has_the_latest_events_and_knows_what_it_has_not() {
        let (mut log, room) = (Log::default(), 3 * seen(0, 0).bytes());
        for (partition, offset) in [(0, 4), (1, 8), (0, 4), (0, 7), (0, 9)] {
            log.push(&seen(partition, offset), room);
        }
        assert_eq!(log.position(), &cursor(&[10, 9]));
        // The first one of partition 0 is gone; between it and the next one there is nothing.
        assert_eq!(log.place_of(&cursor(&[4, 0])), None);
        let mut place = log.place_of(&cursor(&[5, 0])).unwrap();
        assert_eq!(offsets(&log.read(&mut place).unwrap()), [(1, 8), (0, 7), (0, 9)]);
        assert_eq!((place, log.end()), (4, 4));
        assert_eq!(offsets(&log.read(&mut place).unwrap()), []);
        log.push(&seen(1, 11), room);
        assert_eq!(offsets(&log.read(&mut place).unwrap()), [(1, 11)]);
        assert_eq!(log.read(&mut 0), Err(Overrun).map(|()| vec![]), "it has fallen behind");
    }

    #[test]
    fn events_before_the_tails_begin_are_not_known() {
        let mut log = Log::default();
        log.push(&seen(0, 40), usize::MAX);
        log.begun_at(0, 30);
        log.begun_at(1, 7);
        assert_eq!(log.position(), &cursor(&[41, 7]));
        assert_eq!(log.place_of(&cursor(&[29, 7])), None);
        assert_eq!(log.place_of(&cursor(&[30, 6])), None);
        assert_eq!(log.place_of(&cursor(&[30, 7])), Some(0));
    }

    impl std::fmt::Debug for Seen {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(formatter, "{}/{}", self.partition, self.offset)
        }
    }

    impl PartialEq for Seen {
        fn eq(&self, other: &Self) -> bool {
            (self.partition, self.offset) == (other.partition, other.offset)
        }
    }
}
