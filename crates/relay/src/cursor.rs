//! Selects the commits of the stream that are still to be delivered: the pure part of reading.
//!
//! The stream begins at the slot's place, which may lie before the position in Kafka; delivered rows are skipped here.
//! Commits come in the order of their commit records, whole, one after the other (protocol version 1).

use events::position::{LastRow, Lsn, Partial, Position};

/// The stream does what the protocol rules out. Nothing after it can be trusted; a new session decides anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Disorder {
    /// A Begin inside a commit, or the stream goes back.
    #[error("the stream begins commit {0} inside another one or after a later one")]
    Begin(Lsn),
    /// A row or a Commit without its Begin.
    #[error("the stream has a row or an end of a commit that never began")]
    Outside,
    /// The commit of which a part was delivered does not come again.
    #[error("the stream lacks the rest of commit {0}, of which a part was delivered")]
    Lost(Lsn),
    /// A commit that should have been delivered whole ends after the position, or the reverse.
    #[error("commit {0} ends on the wrong side of the position")]
    Torn(Lsn),
}

/// The place after a row that has been delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The end of the last whole commit, as in [`Position::end_lsn`].
    pub(crate) end_lsn: Lsn,
    /// The part of the next commit, as in [`Position::partial`].
    pub(crate) partial: Option<Partial>,
    /// The row itself, where the table is polled, as in [`Position::last_row`].
    pub(crate) last_row: Option<LastRow>,
}

impl Place {
    /// The place at the end of a commit, or of a stretch of log without rows.
    pub(crate) const fn after(end_lsn: Lsn) -> Self {
        Self { end_lsn, partial: None, last_row: None }
    }

    /// The place after a row of the table.
    pub(crate) const fn after_row(row: LastRow) -> Self {
        Self { end_lsn: Lsn(0), partial: None, last_row: Some(row) }
    }

    /// The place of a position.
    pub(crate) const fn of(position: &Position) -> Self {
        Self { end_lsn: position.end_lsn, partial: position.partial, last_row: position.last_row }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.last_row {
            Some(row) => row.fmt(f),
            None => self.end_lsn.fmt(f),
        }
    }
}

/// Follows the stream from a position on.
#[derive(Debug)]
pub(crate) struct Cursor {
    done: Place,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    commit_lsn: Lsn,
    committed_at_micros: i64,
    rows: u64,
    rows_skipped: u64,
}

impl Cursor {
    /// A cursor right after the position.
    pub(crate) fn new(position: &Position) -> Self {
        Self { done: Place::of(position), open: None }
    }

    /// A commit's rows follow.
    pub(crate) fn begin(&mut self, commit_lsn: Lsn, committed_at_micros: i64) -> Result<(), Disorder> {
        if self.open.is_some() {
            return Err(Disorder::Begin(commit_lsn));
        }
        // Records do not overlap: the commit record begins before the position's end exactly if it ends there or
        // before.
        let rows_skipped = match self.done.partial {
            _ if commit_lsn < self.done.end_lsn => u64::MAX,
            Some(partial) if commit_lsn < partial.commit_lsn => u64::MAX,
            Some(partial) if commit_lsn > partial.commit_lsn => return Err(Disorder::Lost(partial.commit_lsn)),
            Some(partial) => partial.rows,
            None => 0,
        };
        self.open = Some(Open { commit_lsn, committed_at_micros, rows: 0, rows_skipped });
        Ok(())
    }

    /// One row of the commit. If it is still to be delivered: how far delivery is after it, and when it was committed
    /// (microseconds since 2000-01-01, as Postgres counts).
    pub(crate) fn row(&mut self) -> Result<Option<(Place, i64)>, Disorder> {
        let open = self.open.as_mut().ok_or(Disorder::Outside)?;
        open.rows += 1;
        if open.rows <= open.rows_skipped {
            return Ok(None);
        }
        let partial = Some(Partial { commit_lsn: open.commit_lsn, rows: open.rows });
        Ok(Some((Place { partial, ..self.done }, open.committed_at_micros)))
    }

    /// The commit is complete. Says how far delivery is, unless it was delivered before.
    pub(crate) fn commit(&mut self, end_lsn: Lsn) -> Result<Option<Place>, Disorder> {
        let open = self.open.take().ok_or(Disorder::Outside)?;
        if open.rows_skipped == u64::MAX {
            let delivered = end_lsn <= self.done.end_lsn || self.done.partial.is_some();
            return if delivered { Ok(None) } else { Err(Disorder::Torn(end_lsn)) };
        }
        if end_lsn <= self.done.end_lsn || open.rows < open.rows_skipped {
            return Err(Disorder::Torn(end_lsn));
        }
        self.done = Place::after(end_lsn);
        Ok(Some(self.done))
    }

    /// The server has sent everything up to here. Says how far delivery is, if that is news and no commit is open.
    pub(crate) fn idle(&mut self, wal_end: Lsn) -> Option<Place> {
        // With a part delivered, the stretch up to the commit's end is not done; the commit itself will say so.
        if self.open.is_some() || self.done.partial.is_some() || wal_end <= self.done.end_lsn {
            return None;
        }
        self.done = Place::after(wal_end);
        Some(self.done)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position(end_lsn: u64, partial: Option<(u64, u64)>) -> Position {
        Position {
            system_identifier: 1,
            timeline: 1,
            end_lsn: Lsn(end_lsn),
            partial: partial.map(|(lsn, rows)| Partial { commit_lsn: Lsn(lsn), rows }),
            last_row: None,
            relayed: 0,
            at_ms: 0,
        }
    }

    #[test]
    fn nothing_is_idle_while_a_commit_is_open() {
        let mut cursor = Cursor::new(&position(10, None));
        cursor.begin(Lsn(20), 0).unwrap();
        assert_eq!(cursor.idle(Lsn(15)), None);
        assert_eq!(cursor.commit(Lsn(25)), Ok(Some(Place::after(Lsn(25)))));
        assert_eq!(cursor.idle(Lsn(25)), None);
        assert_eq!(cursor.idle(Lsn(30)), Some(Place::after(Lsn(30))));
    }

    #[test]
    fn what_the_protocol_rules_out_is_an_error() {
        let mut cursor = Cursor::new(&position(10, Some((30, 2))));
        assert_eq!(cursor.row(), Err(Disorder::Outside));
        assert_eq!(cursor.commit(Lsn(40)), Err(Disorder::Outside));
        assert_eq!(cursor.begin(Lsn(50), 0), Err(Disorder::Lost(Lsn(30))));
        cursor.begin(Lsn(30), 0).unwrap();
        assert_eq!(cursor.begin(Lsn(31), 0), Err(Disorder::Begin(Lsn(31))));
        cursor.row().unwrap();
        assert_eq!(cursor.commit(Lsn(40)), Err(Disorder::Torn(Lsn(40))));
    }

    #[test]
    fn a_commit_across_the_position_is_an_error() {
        let mut cursor = Cursor::new(&position(30, None));
        cursor.begin(Lsn(20), 0).unwrap();
        assert_eq!(cursor.commit(Lsn(31)), Err(Disorder::Torn(Lsn(31))));
    }

    /// Reads a log of commits of some rows each from a position; returns the rows that come out, with their places.
    fn read(log: &[u64], from: &Position) -> Vec<((usize, u64), Place)> {
        let mut cursor = Cursor::new(from);
        let mut out = Vec::new();
        for (commit, rows) in log.iter().enumerate() {
            let lsn = 100 + 10 * commit as u64;
            cursor.begin(Lsn(lsn), 0).unwrap();
            for row in 0..*rows {
                if let Some((place, _)) = cursor.row().unwrap() {
                    out.push(((commit, row), place));
                }
            }
            if let Some(place) = cursor.commit(Lsn(lsn + 8)).unwrap()
                && let Some(last) = out.last_mut().filter(|((of, _), _)| *of == commit)
            {
                // The place of a batch that ends with the commit is the commit's end.
                last.1 = if commit % 2 == 0 { place } else { last.1 };
            }
        }
        out
    }

    proptest! {
        #[test]
        fn from_any_place_the_rest_comes_once_and_in_order(
            log in prop::collection::vec(0u64..4, 0..20), cut: prop::sample::Index,
        ) {
            let all = read(&log, &position(100, None));
            let rows = |read: &[((usize, u64), Place)]| read.iter().map(|(row, _)| *row).collect::<Vec<_>>();
            prop_assert_eq!(all.len() as u64, log.iter().sum::<u64>());
            if !all.is_empty() {
                let at = cut.index(all.len());
                let Place { end_lsn, partial, .. } = all[at].1;
                let again = Position { end_lsn, partial, ..position(0, None) };
                prop_assert_eq!(rows(&read(&log, &again)), rows(&all[at + 1..]));
            }
        }
    }
}
