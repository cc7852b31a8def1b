//! The spans of a job's trace (OpenTelemetry). A role gives a span its parent and its attributes; only this crate knows
//! the SDK.
//!
//! Promise: while traces are not exported nothing is made: no span, no name, no attribute. A span ends when it is
//! dropped.
//!
//! Invariant: bodies, whole URLs and secrets never become attributes.

use std::fmt::{self, Display, Write};
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use events::trace::{Trace, TraceContext};
use opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, SpanKind, SpanRef, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;

use crate::identity::Ids;

/// A longer text attribute is cut, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// A trace that nothing has caused. `flags`: 1 if it is to be sampled (W3C Trace Context).
pub fn fresh(ids: &Ids, flags: u8) -> Trace {
    let trace_id = events::trace::TraceId::new(u128::from_be_bytes(ids.trace_id()));
    Trace::new(TraceContext { trace_id, span_id: u64::from_be_bytes(ids.span_id()), flags })
}

/// Installs the tracer of this process. The first one stays.
pub(crate) fn install(tracer: SdkTracer) {
    let _ = TRACER.set(tracer);
}

/// True if spans are made at all.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// The kind of a span, by OpenTelemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answers a request.
    Server,
    /// Makes a request.
    Client,
    /// Sends a message.
    Producer,
    /// Processes a message.
    Consumer,
    /// Any other work.
    Internal,
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Server => Self::Server,
            Kind::Client => Self::Client,
            Kind::Producer => Self::Producer,
            Kind::Consumer => Self::Consumer,
            Kind::Internal => Self::Internal,
        }
    }
}

/// A Kafka record, as far as its spans describe it.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The key; told when it is text.
    pub key: Option<&'a [u8]>,
    /// The job that it is about.
    pub job: Option<&'a str>,
    /// The cause that its headers name.
    pub cause: Option<TraceContext>,
}

/// A span that has not ended, or nothing where traces are not exported.
#[derive(Default)]
pub struct Span(Option<Context>);

impl fmt::Debug for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Span").field(&self.point()).finish()
    }
}

impl Span {
    /// No span.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Begins a span below `parent`; without one, a new trace. The name is made only if traces are exported.
    pub fn begin(kind: Kind, parent: Option<TraceContext>, name: impl FnOnce() -> String) -> Self {
        Self::begin_at(None, kind, parent, name)
    }

    /// Begins a span for something that began at `since_ms` (milliseconds since the Unix epoch); none: now.
    fn begin_at(
        since_ms: Option<i64>,
        kind: Kind,
        parent: Option<TraceContext>,
        name: impl FnOnce() -> String,
    ) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let parent =
            parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(span_context(parent)));
        let mut builder = tracer.span_builder(name()).with_kind(kind.into());
        if let Some(since_ms) = since_ms {
            builder = builder.with_start_time(UNIX_EPOCH + Duration::from_millis(since_ms.unsigned_abs()));
        }
        let span = builder.start_with_context(tracer, &parent);
        Self(Some(parent.with_span(span)))
    }

    /// Begins `process <topic>`: one message is processed. The span is a child of its cause, and linked to it.
    pub fn process(message: &Message<'_>, group: impl Display, partition: i32, offset: i64) -> Self {
        let span = Self::begin(Kind::Consumer, message.cause, || format!("process {}", message.topic));
        span.describe(message, "process")
            .text("messaging.consumer.group.name", group)
            .text("messaging.destination.partition.id", partition)
            .number("messaging.kafka.offset", offset);
        if let (Some(recorded), Some(cause)) = (span.recorded(), message.cause) {
            // Jaeger folds a link to the parent into one reference, which stays a child's only by this word.
            recorded.add_link(span_context(cause), vec![KeyValue::new("opentracing.ref_type", "child_of")]);
        }
        span
    }

    /// Makes `send <topic>`: one message, ready at `since_ms`, has been sent now. The span is a child of its cause.
    pub fn send(message: &Message<'_>, since_ms: i64) -> Self {
        let span = Self::begin_at(Some(since_ms), Kind::Producer, message.cause, || format!("send {}", message.topic));
        span.describe(message, "send");
        span
    }

    fn describe(&self, message: &Message<'_>, operation: &'static str) -> &Self {
        self.text("messaging.system", "kafka")
            .text("messaging.operation.name", operation)
            .text("messaging.operation.type", operation)
            .text("messaging.destination.name", message.topic);
        if let Some(Ok(key)) = message.key.map(str::from_utf8) {
            self.text("messaging.kafka.message.key", key);
        }
        if let Some(job) = message.job {
            self.text("meanwhile.job.id", job);
        }
        self
    }

    /// The trace context that effects of this span name as their cause. None while traces are not exported.
    pub fn point(&self) -> Option<TraceContext> {
        let span = self.0.as_ref()?.span();
        let context = span.span_context();
        let (trace_id, span_id) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
        Some(TraceContext {
            trace_id: events::trace::TraceId::new(u128::from_be_bytes(trace_id)),
            span_id: u64::from_be_bytes(span_id),
            flags: context.trace_flags().to_u8(),
        })
    }

    /// The trace of this span's effects: below the span; if there is none, below `cause` with a new span id; without a
    /// cause, a new trace.
    pub fn carry_on(&self, cause: Option<Trace>, ids: &Ids) -> Trace {
        let span_id = || u64::from_be_bytes(ids.span_id());
        match (self.point(), cause) {
            (Some(context), cause) => Trace { context, state: cause.and_then(|trace| trace.state) },
            (None, Some(cause)) => cause.child(span_id()),
            (None, None) => fresh(ids, 1),
        }
    }

    /// True if attributes of this span are kept: traces are exported, and this one was sampled.
    pub fn is_recorded(&self) -> bool {
        self.recorded().is_some()
    }

    fn recorded(&self) -> Option<SpanRef<'_>> {
        self.0.as_ref().map(TraceContextExt::span).filter(SpanRef::is_recording)
    }

    /// Names the span anew.
    pub fn rename(&self, name: impl FnOnce() -> String) {
        if let Some(span) = self.recorded() {
            span.update_name(name());
        }
    }

    /// An attribute of text; written out only if it is kept.
    pub fn text(&self, key: &'static str, value: impl Display) -> &Self {
        if let Some(span) = self.recorded() {
            span.set_attribute(KeyValue::new(key, bounded(value)));
        }
        self
    }

    /// An attribute that is a number.
    pub fn number(&self, key: &'static str, value: i64) -> &Self {
        if let Some(span) = self.recorded() {
            span.set_attribute(KeyValue::new(key, value));
        }
        self
    }

    /// Links the span to what led to it in another trace.
    pub fn link(&self, other: TraceContext) -> &Self {
        if let Some(span) = self.recorded() {
            span.add_link(span_context(other), Vec::new());
        }
        self
    }

    /// Marks the span as failed: a short stable word for programs, and a description for a person.
    pub fn fail(&self, error_type: impl Display, description: impl Display) {
        if let Some(span) = self.recorded() {
            span.set_attribute(KeyValue::new("error.type", bounded(error_type)));
            span.set_status(Status::error(bounded(description)));
        }
    }

    /// Runs something within the span: spans that its code makes with the `tracing` macros become its children.
    pub async fn run<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(context) => work.with_context(context.clone()).await,
            None => work.await,
        }
    }
}

fn span_context(context: TraceContext) -> SpanContext {
    let (trace, span) = (TraceId::from(context.trace_id.bits()), SpanId::from(context.span_id));
    SpanContext::new(trace, span, TraceFlags::new(context.flags), true, TraceState::default())
}

/// Text of at most [`TEXT_BYTES_MAX`] bytes.
fn bounded(value: impl Display) -> String {
    let mut bounded = Bounded(String::new());
    // The only error is our own: it is full.
    let _ = write!(bounded, "{value}");
    bounded.0
}

struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = TEXT_BYTES_MAX - self.0.len();
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let mut end = room;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.0.push_str(&text[..end]);
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests;
