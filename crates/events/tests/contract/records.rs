//! Whole records: topic, key and headers are the ones that docs/contract.md promises.

use events::flow_document::FlowDocument;
use events::record::Record;
use events::schema::{RecordKind, subjects};
use events::topic::Topics;
use events::trace::Trace;
use events::wait::{Resume, Signal, Wait};
use events::{
    audit_record, cancel_record, cancel_tombstone, decode_wait, event_record, flow_record, progress_record,
    slip_record, wait_record,
};
use flow::id::TokenId;

use crate::sample::{Any, IDS, samples, schemas, slip, trace};

const JOB: &str = "0190a6f2-7c1e-7cc0-b1f1-000000000001";
const TRACEPARENT: (&str, &str) = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
const TRACESTATE: (&str, &str) = ("tracestate", "vendor=1");

/// The whole record of a value.
pub(crate) fn record_of(value: &Any, queue: &str, trace: &Trace) -> Record {
    let topics = Topics::default();
    match value {
        Any::Slip(slip) => slip_record(&topics, &IDS, queue, slip, trace),
        Any::JobEvent(event) => event_record(&topics, &IDS, event, trace),
        Any::Wait(wait) => wait_record(&topics, &IDS, wait, trace),
        Any::Cancel(cancel) => cancel_record(&topics, &IDS, cancel, trace),
        Any::Progress(progress) => progress_record(&topics, &IDS, progress, trace),
        Any::AuditEntry(entry) => audit_record(&topics, &IDS, entry, trace),
    }
    .unwrap()
}

fn record(name: &str) -> Record {
    let (_, sample) = samples().into_iter().find(|(sample, _)| *sample == name).unwrap();
    record_of(&sample, "shipping", &trace())
}

fn check(record: &Record, topic: &str, key: &str, headers: &[(&str, &str)]) {
    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
    assert_eq!((record.topic.as_str(), text(record.key.as_deref()).as_str()), (topic, key));
    let found: Vec<_> = record.headers.iter().map(|(name, value)| (name.to_owned(), text(value))).collect();
    let wanted: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(found, wanted, "{topic}");
}

#[test]
fn a_slip_goes_to_its_queue_under_its_ordering_key_and_is_named_by_its_hop() {
    let id = format!("{JOB}::3");
    let headers = [TRACEPARENT, TRACESTATE, ("meanwhile-job-id", JOB), ("meanwhile-message-id", id.as_str())];
    check(&record("forward"), "meanwhile.steps.shipping", "acme/order/customer-1", &headers);
    assert_eq!(record("undo").header("meanwhile-message-id"), Some(format!("{JOB}:b-1:{}", u32::MAX).as_bytes()));
}

#[test]
fn an_event_is_a_cloud_event() {
    let id = format!("{JOB}:b-1:3:1");
    check(
        &record("retrying"),
        "meanwhile.events",
        JOB,
        &[
            TRACEPARENT,
            TRACESTATE,
            ("meanwhile-job-id", JOB),
            ("meanwhile-message-id", &id),
            ("ce_id", &id),
            ("ce_source", "/meanwhile/flows/order"),
            ("ce_type", "step.retrying"),
            ("ce_specversion", "1.0"),
            ("ce_time", "2025-07-20T08:26:40.123Z"),
            ("ce_subject", JOB),
            ("content-type", "application/avro"),
        ],
    );
}

#[test]
fn waits_cancels_and_progress_are_keyed_by_the_job() {
    for (name, topic, suffix) in [
        ("backoff", "meanwhile.waits", "::3:hold"),
        ("signal", "meanwhile.waits", ":signal:approval:key-1"),
        ("bare", "meanwhile.cancels", ":cancel"),
        ("started", "meanwhile.progress", ":b-1:3:started:2"),
    ] {
        let id = format!("{JOB}{suffix}");
        let headers = [TRACEPARENT, TRACESTATE, ("meanwhile-job-id", JOB), ("meanwhile-message-id", id.as_str())];
        check(&record(name), topic, JOB, &headers);
    }
    let tombstone = cancel_tombstone(&Topics::default(), slip().job, &trace());
    assert_eq!((tombstone.value.as_ref(), tombstone.key), (None, record("bare").key));
}

#[test]
fn both_records_of_an_entry_are_keyed_by_its_tenant_and_have_names_of_their_own() {
    for (name, suffix) in [("asked", ":audit"), ("audit-answered", ":audit:answered")] {
        let id = format!("0190a6f2-7c1e-7cc0-b1f1-000000000003{suffix}");
        let headers = [TRACEPARENT, TRACESTATE, ("meanwhile-message-id", id.as_str())];
        check(&record(name), "meanwhile.audit", "acme", &headers);
    }
}

#[test]
fn an_operators_word_is_a_signal_that_names_the_hold_it_is_for() {
    let token = TokenId { job: slip().job, branch: "b-1".into(), hop: 7 };
    let resume = Resume { token, tenant: "acme".into(), verdict: None, at_ms: 5 };
    let signal = Signal::from(resume.clone());
    let record = wait_record(&Topics::default(), &IDS, &Wait::Signal(signal.clone()), &trace()).unwrap();
    let id = format!("{JOB}:signal:meanwhile.resume:b-1:7");
    let headers = [TRACEPARENT, TRACESTATE, ("meanwhile-job-id", JOB), ("meanwhile-message-id", id.as_str())];
    check(&record, "meanwhile.waits", JOB, &headers);
    assert_eq!(decode_wait(&schemas(), &record.value.unwrap()).unwrap(), Wait::Signal(signal.clone()));
    assert_eq!(signal.as_resume().unwrap(), Some(resume));
    let (other, torn) = (Signal { name: "approval".into(), ..signal.clone() }, Signal { payload: None, ..signal });
    assert_eq!(other.as_resume().unwrap(), None);
    assert!(torn.as_resume().unwrap_err().to_string().contains("payload"));
}

#[test]
fn a_trace_without_a_state_has_one_header() {
    let Any::Slip(slip) = samples().remove(0).1 else { unreachable!("the first sample is a slip") };
    let bare = slip_record(&Topics::default(), &IDS, "q", &slip, &Trace::new(trace().context)).unwrap();
    assert_eq!((bare.headers.len(), bare.header("tracestate")), (3, None));
}

#[test]
fn a_flow_is_keyed_by_its_version() {
    let document = serde_json::json!({"flow": "order"});
    let document = FlowDocument { flow: "order".into(), version: "0123456789ab".into(), revision: 7, document };
    let record = flow_record(&Topics::new("other"), &document, &trace());
    let id = ("meanwhile-message-id", "order@0123456789ab:7");
    check(
        &record,
        "other.flows",
        "order@0123456789ab",
        &[TRACEPARENT, TRACESTATE, id, ("content-type", "application/json")],
    );
    assert_eq!(FlowDocument::parse(&record.value.unwrap()).unwrap(), document);
}

#[test]
fn each_topic_has_one_kind_and_one_subject() {
    let topics = Topics::new("other");
    let subjects = subjects(&topics, ["default", "shipping"]);
    let named: Vec<_> = subjects.iter().map(|subject| (subject.name.as_str(), subject.kind)).collect();
    assert_eq!(
        named,
        [
            ("other.steps.default-value", RecordKind::Slip),
            ("other.steps.shipping-value", RecordKind::Slip),
            ("other.events-value", RecordKind::JobEvent),
            ("other.waits-value", RecordKind::Wait),
            ("other.cancels-value", RecordKind::Cancel),
            ("other.progress-value", RecordKind::Progress),
            ("other.audit-value", RecordKind::AuditEntry),
        ]
    );
    for subject in subjects {
        assert_eq!(RecordKind::of_topic(&topics, &subject.topic), Some(subject.kind));
    }
    for topic in [topics.commands(), topics.flows(), topics.dead_letters(), "meanwhile.events".to_owned()] {
        assert_eq!(RecordKind::of_topic(&topics, &topic), None);
    }
}
