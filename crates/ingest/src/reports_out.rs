//! The way of services' reports to Kafka: of those that come close together, the last one is sent.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bus::{LossyProducer, Record};
use flow::callback::Permit;
use flow::id::JobId;
use parking_lot::Mutex;

/// Steps that report at the same time. Reports of others are dropped.
const STEPS_MAX: usize = 10_000;

/// What a service tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) percent: Option<u8>,
    pub(crate) message: Option<String>,
}

/// The way out for reports.
pub(crate) struct ReportsOut {
    producer: LossyProducer,
    /// What waits for the end of its step's interval, by job and step.
    steps: Mutex<BTreeMap<(JobId, String), Option<Told>>>,
}

impl ReportsOut {
    /// Connects in the background.
    pub(crate) fn new(bus: &bus::Settings) -> Result<Self, bus::Error> {
        Ok(Self { producer: LossyProducer::new(bus, Self::dropped)?, steps: Mutex::default() })
    }

    /// Has a report wait behind one that was sent a moment ago. If there is none, it is given back.
    pub(crate) fn add(&self, permit: &Permit, told: Told) -> Option<Told> {
        match self.steps.lock().get_mut(&(permit.job, permit.step.clone())) {
            Some(waiting) => {
                let before = waiting.take().unwrap_or_default();
                let (percent, message) = (told.percent.or(before.percent), told.message.or(before.message));
                *waiting = Some(Told { percent, message });
                None
            }
            None => Some(told),
        }
    }

    /// True if the step's interval begins now.
    pub(crate) fn opens(&self, permit: &Permit) -> bool {
        let mut steps = self.steps.lock();
        let is_full = steps.len() >= STEPS_MAX;
        match steps.entry((permit.job, permit.step.clone())) {
            Entry::Occupied(_) => false,
            Entry::Vacant(_) if is_full => false,
            Entry::Vacant(vacant) => {
                vacant.insert(None);
                true
            }
        }
    }

    /// The report that waits; without one the interval is over.
    pub(crate) fn take_or_close(&self, permit: &Permit) -> Option<Told> {
        let mut steps = self.steps.lock();
        let key = (permit.job, permit.step.clone());
        let waiting = steps.get_mut(&key).and_then(Option::take);
        if waiting.is_none() {
            steps.remove(&key);
        }
        waiting
    }

    /// The job has ended: what waits is not sent, and the next report of it is looked at anew.
    pub(crate) fn forget(&self, job: JobId) {
        let mut steps = self.steps.lock();
        while let Some((key, _)) = steps.range((job, String::new())..).next().filter(|((of, _), _)| *of == job) {
            let key = key.clone();
            steps.remove(&key);
        }
    }

    pub(crate) fn send(&self, record: &Record) {
        self.producer.send(record);
    }

    /// A report finds no room.
    pub(crate) fn dropped() {
        metrics::counter!("meanwhile_progress_dropped_total", "role" => "ingest").increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reports_of_a_step_wait_behind_the_one_before_and_the_last_counts() {
        let out = ReportsOut::new(&bus::Settings::new("127.0.0.1:1", "")).unwrap();
        let job: JobId = "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".parse().unwrap();
        let step = "one".to_owned();
        let permit = Permit { job, tenant: "t".to_owned(), step, visit: 1, round: 0, end_ms: 0 };
        let told = |percent: u8, message: Option<&str>| Told {
            percent: Some(percent),
            message: message.map(ToOwned::to_owned),
        };
        assert_eq!(out.add(&permit, told(1, None)), Some(told(1, None)), "nothing was sent before");
        assert!(out.opens(&permit) && !out.opens(&permit));
        assert_eq!(out.add(&permit, told(2, Some("two"))), None);
        assert_eq!(out.add(&permit, told(3, None)), None);
        assert_eq!(out.take_or_close(&permit), Some(told(3, Some("two"))));
        assert_eq!(out.take_or_close(&permit), None);
        assert!(out.steps.lock().is_empty(), "the interval is over");
        let of_other = Permit { job: "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8e".parse().unwrap(), ..permit.clone() };
        assert!(out.opens(&permit) && out.opens(&Permit { step: "two".to_owned(), ..permit.clone() }));
        assert!(out.opens(&of_other));
        out.forget(job);
        assert_eq!(out.add(&permit, told(4, None)), Some(told(4, None)), "the job is looked at anew");
        assert_eq!(out.add(&of_other, told(4, None)), None);
        out.forget(of_other.job);
        for number in 0..STEPS_MAX {
            assert!(out.opens(&Permit { step: number.to_string(), ..permit.clone() }));
        }
        assert!(!out.opens(&permit));
    }
}
