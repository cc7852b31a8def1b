//! Schema ids that the registry does not know.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// The time for which a record waits whose schema nobody knows: a replica of the registry may lag behind. All such
/// records of a process wait at the same time, so that a stream of noise stops a partition no longer than this.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time without any such record after which the next one waits again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// The time for which the registry is not asked again for an id that it did not know.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Ids that are remembered.
const IDS_MAX: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Lost {
    /// When the registry was asked last.
    asked: HashMap<u32, Instant>,
    /// Ids that were told of.
    told: HashSet<u32>,
    /// When the first record of late began to wait, and when the last one was met.
    waiting: Option<(Instant, Instant)>,
}

impl Lost {
    /// True if the registry did not know this id a moment ago.
    pub(super) fn was_asked(&self, id: u32, now: Instant) -> bool {
        self.asked.get(&id).is_some_and(|asked| now.duration_since(*asked) < ASK_AGAIN_AFTER)
    }

    /// The registry does not know this id.
    pub(super) fn was_unknown(&mut self, id: u32, now: Instant) {
        if self.asked.len() >= IDS_MAX {
            self.asked.clear();
        }
        self.asked.insert(id, now);
    }

    /// True if nothing was told yet of this id.
    pub(super) fn is_new(&mut self, id: u32) -> bool {
        self.told.len() < IDS_MAX && self.told.insert(id)
    }

    /// True if a record may wait that nobody can read.
    pub(super) fn may_come(&mut self, now: Instant) -> bool {
        let waiting = self.waiting.filter(|(_, last)| now.duration_since(*last) < FORGOTTEN_AFTER);
        let (since, _) = waiting.unwrap_or((now, now));
        self.waiting = Some((since, now));
        now.duration_since(since) < PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_records_wait_once_and_together() {
        let (mut lost, start) = (Lost::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(lost.may_come(at(0)) && lost.may_come(at(59)));
        assert!(!lost.may_come(at(60)) && !lost.may_come(at(3_000)), "it came late, and waits no more");
        assert!(lost.may_come(at(3_000 + 3_600)), "the first after a long time");
    }

    #[test]
    fn the_registry_is_not_asked_for_every_record() {
        let (mut lost, start) = (Lost::default(), Instant::now());
        assert!(!lost.was_asked(7, start));
        lost.was_unknown(7, start);
        assert!(lost.was_asked(7, start) && !lost.was_asked(8, start));
        assert!(!lost.was_asked(7, start + ASK_AGAIN_AFTER), "it may know it by now");
        assert!(lost.is_new(7) && !lost.is_new(7));
    }
}
