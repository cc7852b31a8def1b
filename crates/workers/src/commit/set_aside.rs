//! A topic that takes no records stops only the results for it: it was deleted, lacks a leader, or may
//! not be written to any more.

use bus::{Record, TopicLook, Undelivered};
use events::trace::Trace;
use events::wait::Wait;
use events::{Schemas, decode_slip};
use flow::decide::{Missing, Next};
use flow::slip::Slip;
use service_kit::Readiness;

use super::Committer;
use crate::desk::Desk;
use crate::work::{Batch, Finished};

/// The name under which readiness tells of such topics.
const DEPENDENCY: &str = "topics";

impl Committer {
    /// Puts the batch back without the results for this topic. Slips for a queue that is gone rest until it is there.
    pub(super) fn set_aside(&mut self, batch: Batch, undelivered: &Undelivered) {
        let Undelivered { topic, is_missing, cause } = undelivered;
        tracing::debug!(topic, %cause, results = batch.results.len(), "a topic took no record of a transaction");
        self.runner.limits.forget(topic);
        self.desk.aborted(batch);
        if *is_missing {
            self.rest_all(topic);
        }
        self.desk.set_aside(topic);
        self.told.tell(&self.desk, undelivered);
    }

    /// Lets all slips for this topic, a queue's that is gone, rest. False if something for it is left.
    fn rest_all(&self, topic: &str) -> bool {
        let (schemas, mut all) = (Schemas::new(), true);
        schemas.insert_writers(&self.runner.writer.ids);
        self.desk.amend(|finished| all &= self.rest(&schemas, topic, finished));
        all
    }

    /// [`Committer::rest_all`], of one result.
    fn rest(&self, schemas: &Schemas, topic: &str, finished: &mut Finished) -> bool {
        let mut all = true;
        let here = self.runner.writer.topics.queue_of(&finished.record.topic).unwrap_or_default().to_owned();
        for record in finished.produced.iter_mut().filter(|record| record.topic == topic) {
            match self.hold(schemas, record, &here) {
                Some(hold) => *record = hold,
                None => all = false,
            }
        }
        all
    }

    /// The hold of a slip whose queue has no topic: it comes back to the queue `here`. Its job is told of it then.
    fn hold(&self, schemas: &Schemas, record: &Record, here: &str) -> Option<Record> {
        let writer = &self.runner.writer;
        let queue = writer.topics.queue_of(&record.topic)?;
        let slip = decode_slip(schemas, record.value.as_deref()?).ok()?;
        let trace = Trace::from_headers(&record.headers)?;
        let came = Slip { hop: slip.hop.saturating_sub(1), ..slip };
        let Next::Hold(hold) = self.runner.look_again(&came, here, 0, &Missing::queue(queue)).next else { return None };
        metrics::counter!("meanwhile_holds_total", "reason" => hold.reason.as_str().to_owned()).increment(1);
        writer.wait(&Wait::Hold(hold), &trace).ok()
    }

    /// Looks whether a topic can take records again. A transaction tells, where it seems so. That it is gone may show
    /// only here: its records may have timed out before the client had heard of it.
    pub(super) fn look(&mut self, topic: &str) {
        let is_well = match self.producer.look_at(topic) {
            TopicLook::Fit => true,
            TopicLook::Unfit => false,
            TopicLook::Missing => self.rest_all(topic),
        };
        self.desk.looked_at(topic, is_well);
    }
}

/// Tells of the topics through readiness, until the session ends.
#[derive(Debug)]
pub(super) struct Told {
    readiness: Readiness,
    topics: Vec<String>,
}

impl Told {
    pub(super) const fn new(readiness: Readiness) -> Self {
        Self { readiness, topics: Vec::new() }
    }

    fn tell(&mut self, desk: &Desk, undelivered: &Undelivered) {
        let Undelivered { topic, cause, .. } = undelivered;
        if !desk.topics_aside().contains(topic) {
            return;
        }
        if !self.topics.contains(topic) {
            // Readiness logs the first one.
            if !self.topics.is_empty() {
                tracing::warn!(topic, %cause, "another topic takes no records; results for it wait");
            }
            self.topics.push(topic.clone());
        }
        let topics = self.topics.join(", ");
        self.readiness
            .missing(DEPENDENCY, format!("{topics}: results for it wait, all others go on ({topic}: {cause})"));
    }

    /// Called after a commit.
    pub(super) fn forget(&mut self, desk: &Desk) {
        if self.topics.is_empty() {
            return;
        }
        let aside = desk.topics_aside();
        self.topics.retain(|topic| aside.contains(topic));
        if self.topics.is_empty() {
            self.readiness.ready(DEPENDENCY);
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if !self.topics.is_empty() {
            self.readiness.ready(DEPENDENCY);
        }
    }
}
