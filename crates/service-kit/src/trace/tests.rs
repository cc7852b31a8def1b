use std::sync::Arc;

use events::trace::TraceId;
use opentelemetry::trace::{SpanId, SpanKind, Status, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt;

use super::*;

/// Keeps what has ended.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().extend(batch);
        Ok(())
    }
}

/// One tracer for all tests of this process; each test looks only at its own trace.
fn ended(trace_id: u128) -> Vec<SpanData> {
    let spans = kept().0.lock().clone();
    let of_trace = |span: &SpanData| span.span_context.trace_id().to_bytes() == trace_id.to_be_bytes();
    spans.into_iter().filter(of_trace).collect()
}

fn kept() -> &'static Kept {
    static KEPT: OnceLock<Kept> = OnceLock::new();
    KEPT.get_or_init(|| {
        let kept = Kept::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
        install(provider.tracer("test"));
        kept
    })
}

fn cause(trace_id: u128, flags: u8) -> TraceContext {
    TraceContext { trace_id: TraceId::new(trace_id), span_id: 7, flags }
}

fn attribute(span: &SpanData, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| attribute.value.to_string()).unwrap_or_default()
}

#[test]
fn a_span_is_linked_to_what_led_to_it_in_another_trace() {
    let _ = kept();
    let span = Span::begin(Kind::Internal, Some(cause(901, 1)), || "redrive meanwhile.commands".to_owned());
    span.link(cause(902, 1));
    drop(span);
    let spans = ended(901);
    let linked: Vec<_> = spans[0].links.iter().map(|link| &link.span_context).collect();
    assert_eq!(linked.len(), 1);
    assert_eq!(linked[0].trace_id().to_bytes(), 902_u128.to_be_bytes());
    assert_eq!(linked[0].span_id(), SpanId::from(7));
    assert!(ended(902).is_empty());
}

#[test]
fn a_processed_message_is_a_child_of_its_cause_linked_to_it_and_says_where_it_lay() {
    let _ = kept();
    let message = Message {
        topic: "meanwhile.steps.default",
        key: Some(b"default/order/bob"),
        job: Some("0190a6f2"),
        cause: Some(cause(1, 1)),
    };
    let span = Span::process(&message, format_args!("{}-workers", "meanwhile"), 3, 42);
    let point = span.point().unwrap();
    assert_eq!((point.trace_id.bits(), point.flags), (1, 1));
    assert_ne!(point.span_id, 7);
    drop(span);
    let spans = ended(1);
    let [span] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((span.name.as_ref(), &span.span_kind), ("process meanwhile.steps.default", &SpanKind::Consumer));
    assert_eq!(span.parent_span_id, SpanId::from(7));
    let links: Vec<_> = span.links.iter().map(|link| link.span_context.span_id()).collect();
    assert_eq!(links, [SpanId::from(7)]);
    for (key, value) in [
        ("messaging.system", "kafka"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "meanwhile.steps.default"),
        ("messaging.consumer.group.name", "meanwhile-workers"),
        ("messaging.destination.partition.id", "3"),
        ("messaging.kafka.offset", "42"),
        ("messaging.kafka.message.key", "default/order/bob"),
        ("meanwhile.job.id", "0190a6f2"),
    ] {
        assert_eq!(attribute(span, key), value, "{key}");
    }
    assert_eq!(span.status, Status::Unset);
}

#[test]
fn a_sent_message_lasts_from_when_it_was_ready_and_a_failure_says_why() {
    let _ = kept();
    let message = Message { topic: "t", key: Some(&[0xff]), job: None, cause: Some(cause(2, 1)) };
    let span = Span::send(&message, 1_700_000_000_123);
    span.fail("too-large", "the record has 2 MiB");
    drop(span);
    let spans = ended(2);
    let [span] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((span.name.as_ref(), &span.span_kind), ("send t", &SpanKind::Producer));
    assert_eq!(span.start_time, UNIX_EPOCH + Duration::from_millis(1_700_000_000_123));
    assert!(span.end_time > span.start_time);
    assert_eq!(attribute(span, "messaging.operation.type"), "send");
    assert_eq!(attribute(span, "messaging.kafka.message.key"), "", "no text, so it is not told");
    assert_eq!(attribute(span, "error.type"), "too-large");
    assert_eq!(span.status, Status::error("the record has 2 MiB"));
}

#[test]
fn what_its_cause_did_not_sample_is_not_kept_but_the_trace_goes_on() {
    let _ = kept();
    let span = Span::begin(Kind::Server, Some(cause(3, 0)), || "GET".to_owned());
    assert!(!span.is_recorded());
    let point = span.point().unwrap();
    assert_eq!((point.trace_id.bits(), point.flags), (3, 0));
    drop(span);
    assert!(ended(3).is_empty());
}

#[test]
fn without_a_cause_a_trace_begins() {
    let _ = kept();
    let span = Span::begin(Kind::Server, None, || "POST".to_owned());
    let point = span.point().unwrap();
    assert_ne!((point.trace_id.bits(), point.span_id), (0, 0));
    span.rename(|| "POST /orders".to_owned());
    drop(span);
    let spans = ended(point.trace_id.bits());
    assert_eq!((spans.len(), spans[0].name.as_ref()), (1, "POST /orders"));
    assert_eq!(spans[0].parent_span_id, SpanId::INVALID);
}

#[test]
fn spans_that_a_native_step_makes_itself_are_children_of_its_attempt() {
    let _ = kept();
    let tracer = TRACER.get().unwrap().clone();
    let subscriber = tracing_subscriber::registry().with(crate::telemetry::bridge(tracer));
    let span = Span::begin(Kind::Internal, Some(cause(4, 1)), || "native book".to_owned());
    let attempt = span.point().unwrap().span_id;
    tracing::subscriber::with_default(subscriber, || {
        let step = span.run(async { tracing::info_span!("call the printer", pages = 3).in_scope(|| {}) });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(step);
    });
    drop(span);
    let spans = ended(4);
    let inner = spans.iter().find(|span| span.name == "call the printer").unwrap();
    assert_eq!(inner.parent_span_id, SpanId::from(attempt));
    assert_eq!(attribute(inner, "pages"), "3");
}

#[test]
fn long_texts_are_cut_at_a_whole_character() {
    assert_eq!(bounded("x".repeat(5_000)).len(), TEXT_BYTES_MAX);
    let cut = bounded(format_args!("{}{}", "x".repeat(TEXT_BYTES_MAX - 1), "ü"));
    assert_eq!(cut.len(), TEXT_BYTES_MAX - 1);
}

#[test]
fn no_span_is_nothing() {
    let span = Span::none();
    span.text("a", 1).number("b", 2).fail("c", "d");
    assert_eq!((span.point(), span.is_recorded()), (None, false));
}

#[test]
fn without_spans_what_a_slip_causes_stays_in_its_trace_under_a_new_id() {
    let cause = Trace::new(TraceContext { trace_id: TraceId::new(5), span_id: 6, flags: 1 });
    let ids = Ids::seeded(1);
    let next = Span::none().carry_on(Some(cause), &ids);
    assert_eq!((next.context.trace_id.bits(), next.context.flags), (5, 1));
    assert_ne!(next.context.span_id, 6);
    let own = Span::none().carry_on(None, &ids);
    assert_ne!((own.context.trace_id.bits(), own.context.trace_id.bits()), (0, 5));
}
