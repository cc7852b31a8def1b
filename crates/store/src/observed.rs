//! Events as they were read from Kafka.

use events::trace::TraceId;
use flow::event::JobEvent;

/// An event as it was read from the events topic.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedEvent {
    /// The partition that it was read from.
    pub partition: i32,
    /// Its offset there: the job's cursor after it.
    pub cursor: i64,
    /// The trace that the record's `traceparent` names.
    pub trace_id: Option<TraceId>,
    /// The event.
    pub event: JobEvent,
}
