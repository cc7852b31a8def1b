//! The comparison of the outbox with what Kafka was given, and what follows from it.

use std::collections::{HashMap, HashSet};

use events::time::HOUR_MS;
use store::Error;
use store::unrelayed::{Hours, Origin, Row, Snapshot, Written};

use super::Older;
use super::journal::{Ahead, Journal};
use crate::Relay;

/// Transactions, and rows, that are read at a time.
const PAGE: u32 = 500;
/// The clocks of the relay and of Postgres may differ by this much.
const CLOCKS_MS: i64 = 300_000;

/// Rows of one transaction that are not on Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) origin: Origin,
    /// The first so many of its rows are there.
    pub(crate) there: u64,
}

/// The comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In the order of transaction ids.
    pub(crate) gaps: Vec<Gap>,
    pub(crate) transactions: u64,
    pub(crate) rows: u64,
    pub(crate) rows_there: u64,
    /// Rows of a time of which Kafka does not name all that it was given.
    pub(crate) rows_older: u64,
    /// The end of that time.
    pub(crate) named_from_ms: Option<i64>,
    pub(crate) ahead: Ahead,
}

impl Plan {
    /// Takes one transaction of the outbox in, of which so many rows are on Kafka.
    fn take_in(&mut self, written: &Written, there: u64, older: Older) {
        let Written { origin, rows } = *written;
        self.transactions += 1;
        self.rows += rows;
        let is_older = self.named_from_ms.is_some_and(|from_ms| origin.began_at_ms() < from_ms + CLOCKS_MS);
        if there >= rows {
            self.rows_there += rows;
        } else if there == 0 && is_older {
            self.rows_older += rows;
            if older == Older::Missing {
                self.gaps.push(Gap { origin, there });
            }
        } else {
            self.rows_there += there;
            self.gaps.push(Gap { origin, there });
        }
    }
}

impl Relay {
    /// Compares what this snapshot holds with what Kafka was given.
    pub(crate) async fn compare(&self, outbox: &mut Snapshot, older: Older) -> anyhow::Result<Plan> {
        let hours = outbox.hours().await?;
        let mut page = outbox.written_after(None, PAGE).await?;
        let oldest_row_ms = page.first().map(|written| written.origin.began_at_ms());
        let oldest_ms = oldest_row_ms.into_iter().chain(hours.begin_ms()).min();
        // The journal is read from an hour before the oldest row.
        let since_ms = oldest_ms.unwrap_or_else(|| self.clock.now_ms()) - HOUR_MS;
        let Journal { mut delivered, named_from_ms, .. } = self.journal(since_ms).await?;
        let mut plan = Plan { named_from_ms, ..Plan::default() };
        while let Some(last) = page.last().map(|written| written.origin) {
            for written in &page {
                plan.take_in(written, delivered.remove(&written.origin).unwrap_or(0), older);
            }
            page = outbox.written_after(Some(last), PAGE).await?;
        }
        // No younger row is ever dropped.
        let kept_from_ms = self.clock.now_ms() - i64::from(self.settings.config.keep_h) * HOUR_MS;
        let unknown = not_here(&delivered, &hours, kept_from_ms);
        if !unknown.is_empty() {
            plan.ahead = self.rows_of(&unknown, since_ms).await?;
        }
        Ok(plan)
    }
}

/// Transactions that the outbox would hold if this server had heard of them.
fn not_here(left: &HashMap<Origin, u64>, hours: &Hours, kept_from_ms: i64) -> HashSet<Origin> {
    let is_kept = |at_ms| at_ms >= kept_from_ms || hours.keep(at_ms);
    left.keys().filter(|origin| is_kept(origin.began_at_ms())).copied().collect()
}

/// Reads the rows of a plan's gaps, in order.
pub(crate) struct Missing<'a> {
    gaps: &'a [Gap],
    chunk: HashMap<Origin, u64>,
    txids: Vec<u64>,
    after: Option<(Origin, i64)>,
    /// The count of rows of the last transaction that were read.
    seen: u64,
}

impl<'a> Missing<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        Self { gaps: &plan.gaps, chunk: HashMap::new(), txids: Vec::new(), after: None, seen: 0 }
    }

    /// The next rows; none after the last.
    pub(crate) async fn next(&mut self, outbox: &mut Snapshot) -> Result<Option<Vec<Row>>, Error> {
        loop {
            if self.txids.is_empty() && !self.next_chunk() {
                return Ok(None);
            }
            let page = outbox.rows_after(&self.txids, self.after, PAGE).await?;
            if page.is_empty() {
                self.txids.clear();
                continue;
            }
            return Ok(Some(page.into_iter().filter(|row| self.is_missing(row)).collect()));
        }
    }

    fn next_chunk(&mut self) -> bool {
        let (chunk, rest) = self.gaps.split_at(self.gaps.len().min(PAGE as usize));
        self.gaps = rest;
        self.chunk = chunk.iter().map(|gap| (gap.origin, gap.there)).collect();
        self.txids = chunk.iter().map(|gap| gap.origin.txid).collect();
        self.after = None;
        !chunk.is_empty()
    }

    fn is_missing(&mut self, row: &Row) -> bool {
        let same = self.after.is_some_and(|(origin, _)| origin == row.origin);
        self.seen = if same { self.seen + 1 } else { 1 };
        self.after = Some((row.origin, row.seq));
        self.chunk.get(&row.origin).is_some_and(|there| self.seen > *there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transaction that began at this time, in milliseconds, with four rows.
    fn written(txid: u64, at_ms: i64) -> Written {
        let epoch_ms = Origin { txid, began_micros: 0 }.began_at_ms();
        Written { origin: Origin { txid, began_micros: (at_ms - epoch_ms) * 1_000 }, rows: 4 }
    }

    #[test]
    fn only_what_is_known_to_be_missing_is_sent() {
        const NAMED_FROM_MS: i64 = 1_000_000_000_000;
        let late = NAMED_FROM_MS + CLOCKS_MS;
        for (at_ms, there, older, gap) in [
            (late, 4, Older::Refuse, None),
            (late, 0, Older::Refuse, Some(0)),
            (late, 3, Older::Refuse, Some(3)),
            (late - 1, 4, Older::Missing, None),
            (late - 1, 3, Older::Delivered, Some(3)),
            (late - 1, 0, Older::Refuse, None),
            (late - 1, 0, Older::Delivered, None),
            (late - 1, 0, Older::Missing, Some(0)),
        ] {
            let mut plan = Plan { named_from_ms: Some(NAMED_FROM_MS), ..Plan::default() };
            let written = written(7, at_ms);
            plan.take_in(&written, there, older);
            let expected: Vec<Gap> = gap.map(|there| Gap { origin: written.origin, there }).into_iter().collect();
            assert_eq!(plan.gaps, expected, "{at_ms} {there} {older:?}");
            assert_eq!(plan.rows_older, if at_ms < late && there == 0 { 4 } else { 0 });
        }
    }
}
