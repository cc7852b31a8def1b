//! Which trace a record belongs to.

use events::record::Header;
use events::trace::{Trace, TraceContext};
use flow::id::JobId;

/// The record's own trace. A record without one gets its job's, so that it is the same on every reading.
pub(crate) fn cause(headers: &[Header], job: JobId) -> Trace {
    Trace::from_headers(headers).unwrap_or_else(|| trace_of(job))
}

fn trace_of(job: JobId) -> Trace {
    let trace_id = job.uuid().as_u128();
    Trace::new(TraceContext { trace_id, span_id: (trace_id as u64).max(1), flags: 0 })
}
