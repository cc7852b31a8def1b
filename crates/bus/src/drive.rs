//! The loop of rule 3: take a batch, apply it with its offsets in one transaction of the caller's database, go on.
//!
//! A batch that cannot be applied now is tried again; one that conflicts is read again; one that a single record
//! spoils is halved until that record is alone, and then buried. So nothing is skipped and nothing can wedge a
//! partition.

use std::future::Future;
use std::time::Duration;

use events::place::OffsetAdvance;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{Batch, ConsumerError, Follower, Part};

/// Between attempts to apply a batch, first and longest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether Kafka can be reached.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why a batch was not applied. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A stored offset is not where the batch starts: somebody else has the partition.
    #[error("a stored offset is not the expected one")]
    Conflict,
    /// Something that is needed does not answer. Try again.
    #[error("not now")]
    NotNow(#[source] anyhow::Error),
    /// A record cannot be stored as it is.
    #[error("a record cannot be stored")]
    Record(#[source] anyhow::Error),
}

impl ApplyError {
    /// The verdict on what the caller's database said.
    pub fn of<E: Into<anyhow::Error>>(error: E, is_conflict: fn(&E) -> bool, is_row_error: fn(&E) -> bool) -> Self {
        if is_conflict(&error) {
            Self::Conflict
        } else if is_row_error(&error) {
            Self::Record(error.into())
        } else {
            Self::NotNow(error.into())
        }
    }
}

impl Batch {
    /// How the stored positions move when this batch is applied: in the transaction that applies it.
    pub fn advances(&self) -> Vec<OffsetAdvance> {
        let advance = |part: &Part| OffsetAdvance {
            topic: part.topic.clone(),
            partition: part.partition,
            // A position of 0 is what a partition has before anything is stored for it.
            expected: (part.first_offset > 0).then_some(part.first_offset),
            next: part.next_offset,
        };
        self.parts.iter().map(advance).collect()
    }
}

/// What a service does with the records that it follows.
pub trait Apply: Send {
    /// Applies all parts and moves their offsets, in one transaction.
    fn apply(&mut self, batch: &Batch) -> impl Future<Output = Result<(), ApplyError>> + Send;

    /// Puts the one record of this batch away as a dead letter and moves its offset, in one transaction.
    fn bury(&mut self, batch: &Batch, reason: &str) -> impl Future<Output = Result<(), ApplyError>> + Send;

    /// Told after every attempt, for readiness.
    fn heard(&mut self, outcome: Result<(), &anyhow::Error>);

    /// Told now and then whether Kafka can be reached, for readiness.
    fn heard_of_kafka(&mut self, is_down: bool);
}

/// Follows until shutdown.
///
/// # Errors
/// Only what cannot be mended by trying again: an offset that is no longer in the log, a broken client.
pub async fn drive(
    follower: &mut Follower,
    service: &mut impl Apply,
    shutdown: &CancellationToken,
) -> Result<(), ConsumerError> {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let batch = tokio::select! {
            batch = follower.next_batch() => batch?,
            _ = looks.tick() => {
                service.heard_of_kafka(follower.is_down());
                continue;
            }
            () = shutdown.cancelled() => return Ok(()),
        };
        apply_all(follower, service, batch, shutdown).await;
    }
}

async fn apply_all(follower: &Follower, service: &mut impl Apply, batch: Batch, shutdown: &CancellationToken) {
    // Pieces yet to be applied, the next one last.
    let mut pieces = vec![batch];
    let mut pause = RETRY_FIRST;
    while let Some(piece) = pieces.last() {
        let error = match service.apply(piece).await {
            Ok(()) => None,
            Err(ApplyError::Record(error)) if piece.len() > 1 => {
                tracing::debug!(error = format!("{error:#}"), records = piece.len(), "halving a batch");
                let (first, second) = halve(pieces.pop().unwrap_or_default());
                pieces.extend([second, first]);
                continue;
            }
            Err(ApplyError::Record(error)) => service.bury(piece, &format!("{error:#}")).await.err(),
            Err(error) => Some(error),
        };
        match error {
            None => {
                service.heard(Ok(()));
                pause = RETRY_FIRST;
                pieces.pop();
            }
            Some(ApplyError::Conflict) => {
                // What follows in these partitions no longer fits either: read their positions again.
                for part in pieces.iter().flat_map(|piece| &piece.parts) {
                    follower.rewind(&part.topic, part.partition);
                }
                return;
            }
            Some(ApplyError::NotNow(error) | ApplyError::Record(error)) => {
                service.heard(Err(&error));
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
                    () = shutdown.cancelled() => return,
                }
            }
        }
    }
}

/// Two batches in place of one, in the order of each partition.
fn halve(batch: Batch) -> (Batch, Batch) {
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
        second.push(Part { topic, partition, first_offset: middle, next_offset: part.next_offset, records: rest });
        if !part.records.is_empty() {
            first.push(Part { next_offset: middle, ..part });
        }
    }
    (Batch { parts: first }, Batch { parts: second })
}

#[cfg(test)]
mod tests {
    use events::Inbound;

    use super::*;

    fn part(partition: i32, offsets: &[i64]) -> Part {
        let record = |offset: &i64| Inbound { partition, offset: *offset, ..Inbound::default() };
        Part {
            topic: "t".to_owned(),
            partition,
            first_offset: offsets[0],
            next_offset: offsets[offsets.len() - 1] + 1,
            records: offsets.iter().map(record).collect(),
        }
    }

    #[test]
    fn halves_keep_every_record_and_their_offsets_meet() {
        let whole = Batch { parts: vec![part(0, &[3, 5, 9]), part(1, &[0, 1])] };
        let (first, second) = halve(whole.clone());
        assert_eq!(first, Batch { parts: vec![Part { next_offset: 6, ..part(0, &[3, 5]) }] });
        assert_eq!(second, Batch { parts: vec![Part { first_offset: 6, ..part(0, &[9]) }, part(1, &[0, 1])] });
        let (first, second) = halve(Batch { parts: vec![part(0, &[7]), part(1, &[2])] });
        assert_eq!((first.parts[0].partition, second.parts[0].partition), (0, 1));
        assert_eq!((first.len(), second.len()), (1, 1));
    }
}
