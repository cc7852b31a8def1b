//! The one way to write our records: the topics' names and the schemas' ids, known once.

use flow::decide::{Decision, Next};
use flow::event::JobEvent;
use flow::slip::Slip;

use crate::audit::AuditEntry;
use crate::cancel::Cancel;
use crate::compose;
use crate::dead_letter::{self, Failure, Refused};
use crate::error::EncodeError;
use crate::progress::Progress;
use crate::record::{Inbound, Record};
use crate::schema::WriterIds;
use crate::topic::Topics;
use crate::trace::Trace;
use crate::wait::Wait;

/// Writes records to the topics of one prefix, in the schemas under which they are registered there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// The names of the topics.
    pub topics: Topics,
    /// The registered ids of the schemas.
    pub ids: WriterIds,
}

impl Writer {
    /// The slip, to its queue.
    pub fn slip(&self, queue: &str, slip: &Slip, trace: &Trace) -> Result<Record, EncodeError> {
        compose::slip_record(&self.topics, &self.ids, queue, slip, trace)
    }

    /// The slip, to its queue, by the value that it has already.
    pub fn slip_as_it_is(&self, queue: &str, slip: &Slip, value: Vec<u8>, trace: &Trace) -> Record {
        compose::slip_record_as_it_is(&self.topics, queue, slip, value, trace)
    }

    /// The event, as a CloudEvent.
    pub fn event(&self, event: &JobEvent, trace: &Trace) -> Result<Record, EncodeError> {
        compose::event_record(&self.topics, &self.ids, event, trace)
    }

    /// The record of a wait.
    pub fn wait(&self, wait: &Wait, trace: &Trace) -> Result<Record, EncodeError> {
        compose::wait_record(&self.topics, &self.ids, wait, trace)
    }

    /// The record of a cancel.
    pub fn cancel(&self, cancel: &Cancel, trace: &Trace) -> Result<Record, EncodeError> {
        compose::cancel_record(&self.topics, &self.ids, cancel, trace)
    }

    /// The record of a report of progress.
    pub fn progress(&self, progress: &Progress, trace: &Trace) -> Result<Record, EncodeError> {
        compose::progress_record(&self.topics, &self.ids, progress, trace)
    }

    /// The record of an entry of the audit log.
    pub fn audit_entry(&self, entry: &AuditEntry, trace: &Trace) -> Result<Record, EncodeError> {
        compose::audit_record(&self.topics, &self.ids, entry, trace)
    }

    /// All records that follow from a decision, to be committed at once. The events come first: a reader who sees the
    /// token move has seen why. A retry in the same process has none.
    pub fn decision(&self, decision: &Decision, trace: &Trace) -> Result<Vec<Record>, EncodeError> {
        let mut records = Vec::with_capacity(decision.events.len() + 1);
        for event in &decision.events {
            records.push(self.event(event, trace)?);
        }
        match &decision.next {
            Next::Step { slip, queue } => records.push(self.slip(queue, slip, trace)?),
            Next::Hold(hold) => records.push(self.wait(&Wait::Hold(hold.clone()), trace)?),
            Next::RetryNow { .. } | Next::End => {}
        }
        Ok(records)
    }

    /// The dead letter of a record that was refused now, at its first attempt.
    pub fn refused(&self, record: &Inbound, refused: &Refused, now_ms: i64) -> Record {
        let failure = Failure::once(refused.class.as_str(), refused.reason.as_str(), now_ms);
        dead_letter::record(&self.topics, record, &failure)
    }
}
