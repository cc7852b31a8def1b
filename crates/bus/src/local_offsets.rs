//! What the in-process broker throws away: offsets committed by a transaction, kept for as long as the process lives.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::transaction::OffsetCommit;

/// Broker address, group, topic, partition.
type Place = (String, String, String, i32);

static COMMITTED: Mutex<BTreeMap<Place, (i64, String)>> = Mutex::new(BTreeMap::new());

/// The committed offset and its metadata.
pub(crate) fn get(brokers: &str, group: &str, topic: &str, partition: i32) -> Option<(i64, String)> {
    let place = (brokers.to_owned(), group.to_owned(), topic.to_owned(), partition);
    COMMITTED.lock().unwrap_or_else(PoisonError::into_inner).get(&place).cloned()
}

/// Commit.
pub(crate) fn put(brokers: &str, group: &str, commits: &[OffsetCommit]) {
    let mut committed = COMMITTED.lock().unwrap_or_else(PoisonError::into_inner);
    for commit in commits {
        crate::room::committed(brokers, group, &commit.topic, commit.partition, commit.next_offset);
        let place = (brokers.to_owned(), group.to_owned(), commit.topic.clone(), commit.partition);
        committed.insert(place, (commit.next_offset, commit.metadata.clone().unwrap_or_default()));
    }
}
