//! The span of a command, `process <topic>`: the cause that the first records of its job name.

use bus::Inbound;
use events::trace::Trace;
use service_kit::trace::{Message, Span, is_on};

/// Begins the span of a command.
pub(crate) fn command(record: &Inbound, prefix: &str) -> Span {
    if !is_on() {
        return Span::none();
    }
    let cause = Trace::from_headers(&record.headers).map(|trace| trace.context);
    let message = Message { topic: &record.topic, key: record.key.as_deref(), job: None, cause };
    Span::process(&message, format_args!("{prefix}-ingest"), record.partition, record.offset)
}
