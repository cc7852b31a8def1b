//! The rest of a slip whose queue has no topic, for whoever was to send it there. It is the same as a worker's.

use flow::decide::{Missing, rest_until_there};
use flow::id::JobId;

use crate::decode::{Schemas, decode_slip};
use crate::error::DecodeError;
use crate::record::Record;
use crate::release;
use crate::trace::Trace;
use crate::writer::Writer;

/// The records that take a slip's place, and what they are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// The job.
    pub job: JobId,
    /// Its flow.
    pub flow: String,
    /// The step that the slip is on its way to.
    pub step: String,
    /// The reason, for a person.
    pub missing: String,
    /// Tells of it, if it is news.
    pub event: Option<Record>,
    /// The slip at rest: a hold of reason `missing-step`. It comes back to the same queue.
    pub hold: Record,
}

/// A slip whose queue has no topic, as far as that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Stray(flow::slip::Slip);

/// Reads a slip for [`Stray::rest`].
///
/// # Errors
/// Those of [`decode_slip`].
pub fn decode_stray(schemas: &Schemas, value: &[u8]) -> Result<Stray, DecodeError> {
    decode_slip(schemas, value).map(Stray)
}

impl Stray {
    /// The rest of the slip of this record. None: the record has no trace, or no record can carry the slip.
    pub fn rest(&self, writer: &Writer, record: &Record, now_ms: i64) -> Option<Rest> {
        let mut slip = self.0.clone();
        release::note(&mut slip, &record.headers);
        let (queue, trace) = (writer.topics.queue_of(&record.topic)?, Trace::from_headers(&record.headers)?);
        let missing = Missing::queue(queue);
        let decision = rest_until_there(&slip, queue, 0, &missing, now_ms);
        let mut records = writer.decision(&decision, &trace).ok()?;
        let hold = records.pop()?;
        Some(Rest {
            job: slip.job,
            flow: slip.flow.clone(),
            step: slip.step.clone(),
            missing: missing.what,
            event: records.pop(),
            hold,
        })
    }
}
