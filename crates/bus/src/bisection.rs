//! Finds the record that makes Kafka refuse transactions: half as many results each time, until one is alone.
//!
//! A result is the unit that transactions are made of: one step's records, or one row of the outbox.

/// The conclusion after a transaction was aborted because of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The next batch has half as many results.
    Halve,
    /// The only result of the batch is to blame.
    Culprit,
}

/// The search: the suspects are always the first results that are ready.
#[derive(Debug)]
pub struct Bisection {
    usual_max: usize,
    results_max: usize,
    suspects: usize,
}

impl Bisection {
    /// A search without suspects; batches may have `usual_max` results then.
    pub fn new(usual_max: usize) -> Self {
        Self { usual_max, results_max: usual_max, suspects: 0 }
    }

    /// The most results of the next batch.
    pub fn results_max(&self) -> usize {
        self.results_max
    }

    /// Notes that a batch of so many results was aborted because of a record.
    pub fn refused(&mut self, results: usize) -> Verdict {
        self.suspects = self.suspects.max(results);
        self.results_max = (results / 2).max(1);
        if results == 1 { Verdict::Culprit } else { Verdict::Halve }
    }

    /// Notes that a batch of so many results was committed.
    pub fn committed(&mut self, results: usize) {
        self.suspects = self.suspects.saturating_sub(results);
        let next_max = if self.suspects == 0 { self.usual_max } else { self.results_max * 2 };
        self.results_max = next_max.min(self.usual_max);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn every_culprit_is_found_alone_and_everything_else_is_committed() {
        for culprits in [vec![0], vec![99], vec![17, 18, 60]] {
            let (mut bisection, mut found, mut committed) = (Bisection::new(64), Vec::new(), 0);
            let mut ready: VecDeque<usize> = (0..100).collect();
            let mut transactions = 0;
            while !ready.is_empty() {
                transactions += 1;
                let batch: Vec<usize> = ready.iter().copied().take(bisection.results_max()).collect();
                if !batch.iter().any(|result| culprits.contains(result) && !found.contains(result)) {
                    ready.drain(..batch.len());
                    committed += batch.len();
                    bisection.committed(batch.len());
                } else if bisection.refused(batch.len()) == Verdict::Culprit {
                    found.push(batch[0]);
                }
            }
            assert_eq!((found, committed), (culprits, 100));
            assert!(transactions < 40, "{transactions}");
            assert_eq!(bisection.results_max(), 64);
        }
    }
}
