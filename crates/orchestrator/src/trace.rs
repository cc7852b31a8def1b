//! The trace of a record.

use events::headers::Headers;
use events::trace::{Trace, TraceContext, TraceId};
use flow::id::JobId;

/// The record's own trace. A record without one gets its job's, so that it is the same on every reading.
pub(crate) fn cause(headers: &Headers, job: JobId) -> Trace {
    Trace::from_headers(headers).unwrap_or_else(|| trace_of(job))
}

/// The trace of a job, for what no record has caused: the same every time.
pub(crate) fn trace_of(job: JobId) -> Trace {
    let bits = job.uuid().as_u128();
    Trace::new(TraceContext { trace_id: TraceId::new(bits), span_id: (bits as u64).max(1), flags: 0 })
}
