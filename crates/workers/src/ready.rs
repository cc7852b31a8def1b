//! Results that wait for a transaction. Pure.
//!
//! Those for a topic that takes no records wait aside, and so do later ones of their lanes: a lane's results are
//! committed in their order. All others go on. Those aside stay in their queue's load, which bounds them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::lanes::Lane;
use crate::work::{Epoch, Finished};

/// The time before the first look at a topic that was set aside, and between looks that find it without a leader.
const LOOK_FIRST: Duration = Duration::from_secs(1);
/// The longest time before it is tried again, where it looks well and refuses records all the same.
const LOOK_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Ready {
    results: VecDeque<Finished>,
    bytes: usize,
    aside: VecDeque<Finished>,
    /// Lanes with a result aside.
    lanes: HashSet<(Epoch, Lane)>,
    topics: HashMap<String, Refusing>,
}

/// A topic that took no records.
#[derive(Debug, Default)]
struct Refusing {
    /// None: its results are tried again.
    look_at: Option<Instant>,
    refusals: u32,
}

impl Ready {
    /// The count of results for the next transactions.
    pub(crate) fn count(&self) -> usize {
        self.results.len()
    }

    /// The bytes that they produce.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// True if nothing waits, aside neither.
    pub(crate) fn is_empty(&self) -> bool {
        self.results.is_empty() && self.aside.is_empty()
    }

    /// True if the next transactions have a result of this epoch.
    pub(crate) fn has(&self, epoch: Epoch) -> bool {
        self.results.iter().any(|finished| finished.epoch == epoch)
    }

    pub(crate) fn push(&mut self, finished: Finished) {
        let lane = (finished.epoch, finished.lane);
        if self.lanes.contains(&lane) || self.is_refused(&finished) {
            self.lanes.insert(lane);
            self.aside.push_back(finished);
        } else {
            self.bytes += finished.produced_bytes();
            self.results.push_back(finished);
        }
    }

    /// Puts a result of an aborted transaction back in front.
    pub(crate) fn push_front(&mut self, finished: Finished) {
        self.bytes += finished.produced_bytes();
        self.results.push_front(finished);
    }

    /// Takes the first result out.
    pub(crate) fn pop(&mut self) -> Option<Finished> {
        let finished = self.results.pop_front()?;
        self.bytes -= finished.produced_bytes();
        Some(finished)
    }

    /// Drops the results of an epoch.
    pub(crate) fn drop_epoch(&mut self, epoch: Epoch) {
        self.results.retain(|finished| finished.epoch != epoch);
        self.aside.retain(|finished| finished.epoch != epoch);
        self.lanes.retain(|(of, _)| *of != epoch);
        self.bytes = self.results.iter().map(Finished::produced_bytes).sum();
    }

    /// Changes what the results produce.
    pub(crate) fn amend(&mut self, change: impl FnMut(&mut Finished)) {
        self.results.iter_mut().chain(&mut self.aside).for_each(change);
        self.sort();
    }

    /// The topic takes no records: results for it wait aside, the longer the more often it was so. Changes nothing
    /// where there are none.
    pub(crate) fn set_aside(&mut self, topic: &str, now: Instant) {
        if !self.results.iter().any(|finished| finished.produces_to(topic)) {
            return;
        }
        let refusing = self.topics.entry(topic.to_owned()).or_default();
        let wait = LOOK_FIRST.saturating_mul(1 << refusing.refusals.min(16)).min(LOOK_MAX);
        refusing.refusals = refusing.refusals.saturating_add(1);
        refusing.look_at = Some(now + wait);
        self.sort();
    }

    /// A topic that is to be looked at now.
    pub(crate) fn look_due(&self, now: Instant) -> Option<&str> {
        self.topics.iter().find(|(_, refusing)| refusing.look_at.is_some_and(|at| at <= now)).map(|(topic, _)| &**topic)
    }

    /// The time of the next look.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.topics.values().filter_map(|refusing| refusing.look_at).min()
    }

    /// A topic was looked at. If it seems well its results are tried again.
    pub(crate) fn looked_at(&mut self, topic: &str, is_well: bool, now: Instant) {
        if let Some(refusing) = self.topics.get_mut(topic) {
            refusing.look_at = (!is_well).then_some(now + LOOK_FIRST);
        }
        if is_well {
            self.sort();
        }
    }

    /// These results were committed: topics that were tried again take records.
    pub(crate) fn committed(&mut self, results: &[Finished]) {
        if !self.topics.is_empty() {
            let took = |topic: &str| results.iter().any(|finished| finished.produces_to(topic));
            self.topics.retain(|topic, refusing| refusing.look_at.is_some() || !took(topic));
        }
    }

    /// The topics whose results wait aside.
    pub(crate) fn topics_aside(&self) -> Vec<String> {
        let refusing = self.topics.iter().filter(|(_, refusing)| refusing.look_at.is_some());
        refusing.map(|(topic, _)| topic.clone()).collect()
    }

    fn is_refused(&self, finished: &Finished) -> bool {
        let refuses = |topic: &String| self.topics.get(topic).is_some_and(|refusing| refusing.look_at.is_some());
        !self.topics.is_empty() && finished.produced.iter().any(|record| refuses(&record.topic))
    }

    /// What is aside is older than what is not, in the same lane.
    fn sort(&mut self) {
        let (aside, results) = (std::mem::take(&mut self.aside), std::mem::take(&mut self.results));
        self.bytes = 0;
        self.lanes.clear();
        aside.into_iter().chain(results).for_each(|finished| self.push(finished));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bus::{Inbound, Record};

    use super::*;

    /// Its offset is also its number.
    fn result(offset: i64, lane: &str, topic: &str) -> Finished {
        let record = Arc::new(Inbound { offset, ..Inbound::default() });
        let produced = vec![Record { topic: topic.to_owned(), value: Some(vec![0; 10]), ..Record::default() }];
        Finished::new(Epoch(1), Lane::of(lane.as_bytes()), record, produced, false)
    }

    fn drain(ready: &mut Ready) -> Vec<i64> {
        std::iter::from_fn(|| ready.pop()).map(|finished| finished.record.offset).collect()
    }

    #[test]
    fn results_for_a_topic_that_takes_none_wait_aside_with_those_behind_them_in_their_lanes() {
        let (mut ready, now) = (Ready::default(), Instant::now());
        ready.set_aside("gone", now);
        assert!(ready.next_look().is_none(), "nothing is for it");
        for (offset, lane, topic) in [(1, "a", "gone"), (2, "b", "there"), (3, "a", "there")] {
            ready.push(result(offset, lane, topic));
        }
        ready.set_aside("gone", now);
        ready.push(result(4, "a", "there"));
        ready.push(result(5, "c", "there"));
        assert_eq!((ready.count(), ready.topics_aside()), (2, vec!["gone".to_owned()]));
        assert_eq!((drain(&mut ready), ready.bytes(), ready.is_empty()), (vec![2, 5], 0, false));
        assert!(ready.look_due(now).is_none() && ready.look_due(now + LOOK_FIRST) == Some("gone"));
        ready.looked_at("gone", false, now);
        assert!(ready.count() == 0 && ready.next_look().is_some());
        ready.looked_at("gone", true, now);
        assert_eq!((drain(&mut ready), ready.is_empty()), (vec![1, 3, 4], true));
    }

    #[test]
    fn a_topic_that_looks_well_and_refuses_is_tried_more_and_more_seldom() {
        let (mut ready, now) = (Ready::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            ready.push(result(1, "a", "t"));
            ready.set_aside("t", now);
            waits.push(ready.next_look().unwrap().duration_since(now).as_secs());
            ready.looked_at("t", true, now);
            drain(&mut ready);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        ready.committed(&[result(1, "a", "t")]);
        assert!(ready.topics.is_empty(), "it takes records again");
    }

    #[test]
    fn a_partition_that_goes_takes_its_results_along() {
        let (mut ready, now) = (Ready::default(), Instant::now());
        ready.push(result(1, "a", "t"));
        ready.set_aside("t", now);
        ready.push(result(2, "b", "u"));
        assert!(ready.has(Epoch(1)));
        ready.drop_epoch(Epoch(1));
        assert!(ready.is_empty() && ready.lanes.is_empty() && ready.bytes() == 0);
    }
}
