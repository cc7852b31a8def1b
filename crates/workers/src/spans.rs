//! Spans of this service: `process <topic>` for each slip that is taken, and below it one per attempt of its step.

use bus::Inbound;
use events::header;
use events::trace::Trace;
use flow::decide::{HttpAnswer, HttpCall, Outcome, StepError};
use flow::slip::Slip;
use service_kit::trace::{Kind, Message, Span, is_on};

/// Begins the span of a slip. The topics and the workers' group have the same `prefix`.
pub(crate) fn process(record: &Inbound, prefix: &str) -> Span {
    if !is_on() {
        return Span::none();
    }
    let message = Message {
        topic: &record.topic,
        key: record.key.as_deref(),
        job: record.header_text(header::JOB_ID),
        cause: Trace::from_headers(&record.headers).map(|trace| trace.context),
    };
    Span::process(&message, format_args!("{prefix}-workers"), record.partition, record.offset)
}

/// Describes the slip in its span, once it is read.
pub(crate) fn slip(span: &Span, slip: &Slip) {
    span.text("meanwhile.flow", &slip.flow)
        .text("meanwhile.step", &slip.step)
        .text("meanwhile.phase", slip.phase.as_str())
        .text("meanwhile.tenant", &slip.tenant)
        .number("meanwhile.visit", i64::from(slip.visit))
        .number("meanwhile.hop", i64::from(slip.hop));
}

/// Begins the span of an attempt over HTTP: `{method} {step}`. The URL may hold a secret: only its host is told.
pub(crate) fn http(call: &HttpCall, slip: &Slip, trace: &Trace) -> Span {
    let span = Span::begin(Kind::Client, Some(trace.context), || format!("{} {}", call.method, slip.step));
    if span.is_recorded() {
        span.text("http.request.method", &call.method);
        if let Ok(url) = url::Url::parse(&call.url) {
            span.text("server.address", url.host_str().unwrap_or_default());
            span.number("server.port", i64::from(url.port_or_known_default().unwrap_or_default()));
        }
        if slip.attempt > 0 {
            span.number("http.request.resend_count", i64::from(slip.attempt));
        }
        attempt(&span, slip);
    }
    span
}

/// Adds the answer's status to the span.
pub(crate) fn answered(span: &Span, answer: &HttpAnswer) {
    if let HttpAnswer::Response { status, .. }
    | HttpAnswer::TooLarge { status, .. }
    | HttpAnswer::Kept { status, .. }
    | HttpAnswer::Undecodable { status, .. } = answer
    {
        span.number("http.response.status_code", i64::from(*status));
    }
}

/// Begins the span of a native step's attempt: `native {name}`.
pub(crate) fn native(name: &str, slip: &Slip, trace: &Trace) -> Span {
    let span = Span::begin(Kind::Internal, Some(trace.context), || format!("native {name}"));
    attempt(&span, slip);
    span
}

fn attempt(span: &Span, slip: &Slip) {
    self::slip(span, slip);
    span.text("meanwhile.job.id", slip.job).number("meanwhile.attempt", i64::from(slip.attempt) + 1);
}

/// Adds a failed attempt's error to its span. By the conventions for HTTP, the status, if any, is the error's type.
pub(crate) fn attempted(span: &Span, outcome: &Outcome) {
    let Outcome::Failed { error: StepError { code, message, status }, retryable, .. } = outcome else { return };
    span.text("meanwhile.retryable", retryable);
    match status {
        Some(status) => span.fail(status, message),
        None => span.fail(code, message),
    }
}

/// The error of a failed attempt, if the span is recorded.
pub(crate) fn failure(span: &Span, outcome: &Outcome) -> Option<StepError> {
    match outcome {
        Outcome::Failed { error, .. } if span.is_recorded() => Some(error.clone()),
        Outcome::Failed { .. }
        | Outcome::Succeeded { .. }
        | Outcome::Accepted { .. }
        | Outcome::NotYet { .. }
        | Outcome::NothingToUndo { .. }
        | Outcome::Skipped
        | Outcome::NotDone
        | Outcome::Rests(_)
        | Outcome::NotSignalled
        | Outcome::Cancelled => None,
    }
}
