//! Order by key: of the slips of one partition that share a record key, one runs at a time, in offset order.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// A lane: all slips whose keys share a hash. Two keys that collide only wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Lane(u64);

impl Lane {
    /// The lane of a record key.
    pub(crate) fn of(key: &[u8]) -> Self {
        Self(BuildHasherDefault::<DefaultHasher>::default().hash_one(key))
    }
}

/// The lanes of one partition.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    /// Items that wait in each taken lane. An empty queue means that one item runs and none waits.
    waiting: HashMap<Lane, VecDeque<T>>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { waiting: HashMap::new() }
    }
}

impl<T> Lanes<T> {
    /// Hands the item back if its lane is free (it then takes the lane); keeps it otherwise.
    pub(crate) fn enter(&mut self, lane: Lane, item: T) -> Option<T> {
        if let Some(waiting) = self.waiting.get_mut(&lane) {
            waiting.push_back(item);
            return None;
        }
        self.waiting.insert(lane, VecDeque::new());
        Some(item)
    }

    /// Ends the item that ran: hands out the next one of its lane, or frees the lane.
    pub(crate) fn leave(&mut self, lane: Lane) -> Option<T> {
        let next = self.waiting.get_mut(&lane)?.pop_front();
        if next.is_none() {
            self.waiting.remove(&lane);
        }
        next
    }

    /// The count of taken lanes, which is the count of slips that run.
    pub(crate) fn running(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever order slips arrive and end in: per key they start in offset order, one at a time, and all start.
        #[test]
        fn slips_of_a_key_start_in_order_and_one_at_a_time(
            keys in proptest::collection::vec(0_u8..6, 1..80),
            ends in proptest::collection::vec(any::<u16>(), 0..200),
        ) {
            let mut lanes = Lanes::default();
            let mut running: Vec<(u8, usize)> = Vec::new();
            let mut started: Vec<(u8, usize)> = Vec::new();
            let mut arrivals = keys.iter().copied().enumerate();
            let mut ends = ends.into_iter();
            loop {
                let (arrival, end) = (arrivals.next(), ends.next());
                if let Some((offset, key)) = arrival
                    && let Some(item) = lanes.enter(Lane::of(&[key]), (key, offset)) {
                    running.push(item);
                    started.push(item);
                }
                if (end.is_some() || arrival.is_none()) && !running.is_empty() {
                    let (key, _) = running.remove(end.unwrap_or(0) as usize % running.len());
                    if let Some(item) = lanes.leave(Lane::of(&[key])) {
                        running.push(item);
                        started.push(item);
                    }
                } else if arrival.is_none() {
                    break;
                }
                let mut now: Vec<u8> = running.iter().map(|(key, _)| *key).collect();
                now.sort_unstable();
                prop_assert!(now.windows(2).all(|pair| pair[0] != pair[1]), "two of a key at once: {now:?}");
                prop_assert_eq!(lanes.running(), running.len());
            }
            prop_assert_eq!(started.len(), keys.len());
            for key in 0..6 {
                let of_key = started.iter().filter(|(of, _)| *of == key);
                let offsets: Vec<usize> = of_key.map(|(_, offset)| *offset).collect();
                prop_assert!(offsets.is_sorted(), "key {key} started in the order {offsets:?}");
            }
        }
    }
}
