//! Reads the relay's position on Kafka, and writes it where no rows come with it.

use std::time::Duration;

use anyhow::anyhow;
use bus::{Inbound, Table, TransactionalProducer, TxError};
use events::position::Position;

use crate::Relay;
use crate::ended::SessionError;
use crate::fit::Server;
use crate::stored::Stored;

/// The time limit for reading the position.
const POSITION_TIMEOUT: Duration = Duration::from_secs(30);
/// The starts of the search for the position, in offsets before the end of its topic. Between two compactions more
/// records are written under load than a takeover should read.
const POSITION_OFFSETS_BACK: [i64; 3] = [1_000, 100_000, i64::MAX];

impl Relay {
    /// The newest position in Kafka; none when there never was one, or when it was tombstoned.
    pub(crate) async fn read_position(&self) -> Result<Option<Stored>, SessionError> {
        let reading = tokio::time::timeout(POSITION_TIMEOUT, self.find_position());
        reading.await.map_err(|_| SessionError::Kafka(anyhow!("the position could not be read in time")))?
    }

    /// True for a position of our slot, or its tombstone.
    pub(crate) fn is_ours(&self, record: &Inbound) -> bool {
        record.key.as_deref() == Some(self.slot.as_bytes())
    }

    async fn find_position(&self) -> Result<Option<Stored>, SessionError> {
        let topic = self.settings.topics.relay();
        let ends = self.admin.end_offsets(std::slice::from_ref(&topic)).await?;
        let end = ends.into_values().max().unwrap_or(0);
        for back in POSITION_OFFSETS_BACK {
            let (records, _) = Table::load_recent(&self.settings.bus, &topic, back).await?;
            let newest = records.into_iter().rev().find(|record| self.is_ours(record));
            if let Some(record) = newest {
                return Stored::of(&record).map_err(SessionError::Position);
            }
            if back >= end {
                break;
            }
        }
        Ok(None)
    }

    /// The position in the log that a promoted server has in common with the one that it is of. While nothing comes, a
    /// relay notes how far the log has come, which the standby may not have heard: then it is moved back to there.
    pub(crate) async fn in_common(&self, stored: Stored, server: &Server) -> Result<Stored, SessionError> {
        let position = stored.position;
        let fork = server.forks.iter().find(|(timeline, _)| *timeline == position.timeline).map(|(_, fork)| *fork);
        let Some(fork) = fork.filter(|fork| *fork < position.end_lsn && position.partial.is_none()) else {
            return Ok(stored);
        };
        let topic = self.settings.topics.relay();
        let (records, _) = Table::load_recent(&self.settings.bus, &topic, POSITION_OFFSETS_BACK[0]).await?;
        let ours = records.iter().rev().filter(|record| self.is_ours(record));
        let mut earlier = ours.map_while(|record| Stored::of(record).ok().flatten().map(|stored| stored.position));
        let is_before = |earlier: &Position| earlier.timeline == position.timeline && earlier.end_lsn <= fork;
        match earlier.find(is_before) {
            Some(last) if last.relayed == position.relayed && last.partial.is_none() => {
                Ok(Stored { position: Position { end_lsn: fork, ..position }, ..stored })
            }
            _ => Ok(stored),
        }
    }

    /// Writes a position by itself. For good: whoever reads it later finds it.
    pub(crate) async fn store_position(
        &self,
        mut producer: TransactionalProducer,
        stored: &Stored,
    ) -> Result<TransactionalProducer, SessionError> {
        let record = stored.record(&self.settings.topics, &self.slot, None);
        let storing = tokio::task::spawn_blocking(move || {
            producer.begin()?;
            producer.send(&record)?;
            producer.commit().map(|()| producer)
        });
        match storing.await {
            Ok(Ok(producer)) => Ok(producer),
            Ok(Err(TxError::Fenced)) => Err(SessionError::Superseded),
            Ok(Err(error)) => Err(SessionError::Kafka(error.into())),
            Err(error) => Err(SessionError::Kafka(error.into())),
        }
    }
}
