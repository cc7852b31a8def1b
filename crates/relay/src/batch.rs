//! The content of one Kafka transaction: the rows that are ready, up to a limit, and the position after them.

use std::time::{Duration, Instant};

use crate::cursor::Place;
use crate::read::{Item, Row};

/// Rows in the stream's order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) rows: Vec<Row>,
    bytes: usize,
    /// The place after the last row, if it is further than the row's own.
    after: Option<Place>,
}

impl Batch {
    pub(crate) fn push(&mut self, item: Item) {
        match item {
            Item::Row(row) => {
                self.bytes += row.record.size_bytes();
                self.after = None;
                self.rows.push(row);
            }
            Item::Reached(place) => self.after = Some(place),
        }
    }

    pub(crate) fn is_full(&self, rows_max: usize, bytes_max: usize) -> bool {
        self.rows.len() >= rows_max || self.bytes >= bytes_max
    }

    /// The place after the first `count` rows; none when nothing moved.
    pub(crate) fn place_after(&self, count: usize) -> Option<Place> {
        let whole = count == self.rows.len();
        self.after.filter(|_| whole).or_else(|| Some(self.rows.get(count.checked_sub(1)?)?.place))
    }
}

/// The time at which the next transaction may begin: at once when idle; under load, after twice the time that the last
/// commit took, so that commits take half of the time at most and batches grow; never later than the longest interval.
#[derive(Debug)]
pub(crate) struct Pace {
    interval_max: Duration,
    next_at: Instant,
}

impl Pace {
    pub(crate) fn new(interval_max: Duration, now: Instant) -> Self {
        Self { interval_max, next_at: now }
    }

    pub(crate) fn committed(&mut self, began_at: Instant, took: Duration) {
        self.next_at = began_at + self.interval_max.min(2 * took);
    }

    pub(crate) const fn next_at(&self) -> Instant {
        self.next_at
    }
}

#[cfg(test)]
mod tests {
    use events::Record;
    use events::position::{Lsn, Partial};
    use store::unrelayed::Origin;

    use super::*;

    fn row(rows: u64) -> Item {
        let place = Place { end_lsn: Lsn(10), partial: Some(Partial { commit_lsn: Lsn(20), rows }), last_row: None };
        let record = Record { value: Some(vec![0; 100]), ..Record::default() };
        let origin = Origin { txid: 1, began_micros: 0 };
        Item::Row(Row::new(record, origin, place, 0, None))
    }

    #[test]
    fn any_number_of_rows_has_its_place() {
        let mut batch = Batch::default();
        assert_eq!(batch.place_after(0), None);
        batch.push(Item::Reached(Place::after(Lsn(10))));
        assert_eq!(batch.place_after(0), Some(Place::after(Lsn(10))));
        batch.push(row(1));
        batch.push(row(2));
        assert_eq!(batch.place_after(2).unwrap().partial.unwrap().rows, 2);
        batch.push(Item::Reached(Place::after(Lsn(30))));
        assert_eq!(batch.place_after(1).unwrap().partial.unwrap().rows, 1);
        assert_eq!(batch.place_after(2), Some(Place::after(Lsn(30))));
        assert!(batch.is_full(2, 1_000) && batch.is_full(9, 200) && !batch.is_full(3, 1_000));
    }

    #[test]
    fn commits_take_at_most_half_of_the_time_up_to_a_limit() {
        let began = Instant::now();
        let mut pace = Pace::new(Duration::from_millis(20), began);
        pace.committed(began, Duration::from_millis(3));
        assert_eq!(pace.next_at(), began + Duration::from_millis(6));
        pace.committed(began, Duration::from_millis(30));
        assert_eq!(pace.next_at(), began + Duration::from_millis(20));
    }
}
