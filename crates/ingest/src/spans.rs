//! The spans of this role's own: `process <topic>`, the cause that the first records of a command's job name; `accept
//! <flow>`, that of an item of a batch; and `redrive <topic>`, the cause that a redriven record names.

use bus::Inbound;
use events::trace::Trace;
use service_kit::trace::{Kind, Message, Span, is_on};

/// Begins the span of a command.
pub(crate) fn command(record: &Inbound, prefix: &str) -> Span {
    if !is_on() {
        return Span::none();
    }
    let cause = Trace::from_headers(&record.headers).map(|trace| trace.context);
    let message = Message { topic: &record.topic, key: record.key.as_deref(), job: None, cause };
    Span::process(&message, format_args!("{prefix}-ingest"), record.partition, record.offset)
}

/// Begins the span of a redrive, below its request. The record that goes back belongs to this trace, and the span is
/// linked to the one in which the record failed.
pub(crate) fn redrive(dead: &Inbound, topic: &str, class: &str, request: &Trace) -> Span {
    let span = Span::begin(Kind::Internal, Some(request.context), || format!("redrive {topic}"));
    span.text("messaging.destination.name", topic).text("meanwhile.failure.class", class);
    if let Some(failed) = Trace::from_headers(&dead.headers) {
        span.link(failed.context);
    }
    span
}

/// Begins the span of an item of a batch: the root of its job's trace, linked to the request's.
pub(crate) fn item(flow: &str, request: &Trace) -> Span {
    let span = Span::begin(Kind::Internal, None, || format!("accept {flow}"));
    span.link(request.context);
    span
}
