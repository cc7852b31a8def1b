//! What Kafka says that it was given: the positions of the relay, each with the names of the rows that its transaction
//! carries. Kafka may have deleted those rows since; the names stay for a day.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Context;
use bus::{Inbound, Table};
use events::{Record, header};
use store::unrelayed::Origin;
use uuid::Uuid;

use crate::Relay;
use crate::manifest::{self, Carried, RowName};
use crate::stored::Stored;

/// Offsets read before the wanted time, to know the count of rows that were relayed until then.
const OFFSETS_BEFORE: i64 = 50;

/// The rows that were delivered, by the transaction that wrote them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Journal {
    /// The count of delivered rows of each transaction: the first so many of it.
    pub(crate) delivered: HashMap<Origin, u64>,
    /// What was delivered before that time is not all named; none: everything is.
    pub(crate) named_from_ms: Option<i64>,
    /// The count of relayed rows according to the record before.
    relayed: Option<u64>,
}

/// What is on Kafka of transactions that this server does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Rows by job; none: rows without a job.
    pub(crate) jobs: BTreeMap<Option<Uuid>, u64>,
    /// The rows' topics and message ids.
    pub(crate) messages: HashSet<u64>,
}

impl Ahead {
    /// True if this record is on Kafka, though not by a transaction of this server.
    pub(crate) fn knows(&self, record: &Record) -> bool {
        RowName::of(record).message.is_some_and(|message| self.messages.contains(&message))
    }
}

impl Journal {
    /// Takes one position in; `since_ms` is the time from which on names are wanted.
    fn take_in(&mut self, stored: Option<&Stored>, carried: &[Carried], since_ms: i64) {
        // A tombstone begins a new count.
        let Some(Stored { position, .. }) = stored else { return self.relayed = None };
        let named = carried.iter().map(|carried| carried.rows.len() as u64).sum::<u64>();
        let is_whole = match self.relayed {
            Some(before) => position.relayed == before + named,
            None => position.relayed == named || position.at_ms < since_ms,
        };
        if !is_whole {
            self.named_from_ms = Some(position.at_ms);
        }
        self.relayed = Some(position.relayed);
        for Carried { origin, rows } in carried {
            *self.delivered.entry(*origin).or_default() += rows.len() as u64;
        }
    }
}

impl Relay {
    /// What was delivered since that time.
    pub(crate) async fn journal(&self, since_ms: i64) -> anyhow::Result<Journal> {
        let mut journal = Journal::default();
        let taking = |stored: Option<Stored>, carried: Vec<Carried>| {
            journal.take_in(stored.as_ref(), &carried, since_ms);
        };
        self.scan(since_ms, taking).await?;
        Ok(journal)
    }

    /// The rows of these transactions, by name.
    pub(crate) async fn rows_of(&self, origins: &HashSet<Origin>, since_ms: i64) -> anyhow::Result<Ahead> {
        let mut ahead = Ahead::default();
        let taking = |_, carried: Vec<Carried>| {
            for row in carried.iter().filter(|carried| origins.contains(&carried.origin)).flat_map(|known| &known.rows)
            {
                *ahead.jobs.entry(row.job).or_default() += 1;
                ahead.messages.extend(row.message);
            }
        };
        self.scan(since_ms, taking).await?;
        Ok(ahead)
    }

    /// Reads the positions of our slot since that time, in order.
    async fn scan(
        &self,
        since_ms: i64,
        mut take: impl FnMut(Option<Stored>, Vec<Carried>) + Send,
    ) -> anyhow::Result<()> {
        let topic = self.settings.topics.relay();
        let ends = self.admin.end_offsets(std::slice::from_ref(&topic)).await?;
        let end = ends.into_values().max().unwrap_or(0);
        let begin = self.admin.offsets_at(&topic, since_ms).await?.into_values().min().unwrap_or(end);
        let mut failed = None;
        let each = |records: Vec<Inbound>| {
            for record in records.iter().filter(|record| self.is_ours(record)) {
                match read(record) {
                    Ok((stored, carried)) => take(stored, carried),
                    Err(error) => failed = failed.take().or(Some(error)),
                }
            }
        };
        Table::stream_recent(&self.settings.bus, &topic, end - begin + OFFSETS_BEFORE, each).await?;
        failed.map_or(Ok(()), Err)
    }
}

fn read(record: &Inbound) -> anyhow::Result<(Option<Stored>, Vec<Carried>)> {
    let carried = match record.header(header::RELAY_ROWS) {
        Some(manifest) => {
            manifest::decode(manifest).with_context(|| format!("{}[0] offset {}", record.topic, record.offset))?
        }
        None => Vec::new(),
    };
    Ok((Stored::of(record)?, carried))
}

#[cfg(test)]
mod tests {
    use events::position::{Lsn, Position};

    use super::*;

    fn stored(relayed: u64, at_ms: i64) -> Stored {
        let position = Position {
            system_identifier: 1,
            timeline: 1,
            end_lsn: Lsn(1),
            partial: None,
            last_row: None,
            relayed,
            at_ms,
        };
        Stored { position, publication: None, unsettled: None }
    }

    fn carried(txid: u64, rows: usize) -> Carried {
        let rows = vec![RowName { job: None, message: None }; rows];
        Carried { origin: Origin { txid, began_micros: 0 }, rows }
    }

    /// Positions as (relayed, at_ms, named rows of transaction 7); none is a tombstone. Names are wanted from 100 on.
    fn read(positions: &[Option<(u64, i64, usize)>]) -> (u64, Option<i64>) {
        let mut journal = Journal::default();
        for position in positions {
            match position {
                None => journal.take_in(None, &[], 100),
                Some((relayed, at_ms, rows)) => {
                    journal.take_in(Some(&stored(*relayed, *at_ms)), &[carried(7, *rows)], 100);
                }
            }
        }
        (journal.delivered.values().sum(), journal.named_from_ms)
    }

    #[test]
    fn a_journal_knows_from_when_on_it_names_all() {
        assert_eq!(read(&[]), (0, None));
        assert_eq!(
            read(&[Some((2, 110, 2)), Some((2, 120, 0)), Some((5, 130, 3))]),
            (5, None),
            "from the first row on"
        );
        assert_eq!(read(&[Some((9, 90, 0)), Some((11, 110, 2))]), (2, None), "one before the time is where it begins");
        assert_eq!(read(&[Some((9, 110, 1)), Some((10, 120, 1))]), (2, Some(110)), "records before are gone");
        assert_eq!(read(&[Some((9, 90, 0)), Some((12, 110, 0))]), (0, Some(110)), "a version that names nothing");
        assert_eq!(read(&[Some((9, 90, 0)), None, Some((3, 110, 3))]), (3, None), "a count from 0 after a tombstone");
    }
}
