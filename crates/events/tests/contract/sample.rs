//! Fixed values to try things on.

use events::cancel::Cancel;
use events::progress::Progress;
use events::record::Record;
use events::trace::Trace;
use events::wait::{Alive, Outcome, Question, RunningCall, Signal, Turn, Wait};
use events::{
    DecodeError, EncodeError, RecordKind, Schemas, WriterIds, decode_cancel, decode_event, decode_progress,
    decode_slip, decode_wait, encode_cancel, encode_event, encode_progress, encode_slip, encode_wait,
};
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::id::{JobId, TokenId};
use flow::slip::{Completed, Failure, Hold, HoldReason, Phase, Slip};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) const IDS: WriterIds =
    WriterIds { slip: 1, job_event: 2, wait: 3, cancel: 0x0102_0304, progress: i32::MAX as u32 };

/// Any of the records.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Any {
    Slip(Slip),
    JobEvent(JobEvent),
    Wait(Wait),
    Cancel(Cancel),
    Progress(Progress),
}

impl Any {
    pub(crate) fn kind(&self) -> RecordKind {
        match self {
            Self::Slip(_) => RecordKind::Slip,
            Self::JobEvent(_) => RecordKind::JobEvent,
            Self::Wait(_) => RecordKind::Wait,
            Self::Cancel(_) => RecordKind::Cancel,
            Self::Progress(_) => RecordKind::Progress,
        }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Slip(slip) => encode_slip(&IDS, slip),
            Self::JobEvent(event) => encode_event(&IDS, event),
            Self::Wait(wait) => encode_wait(&IDS, wait),
            Self::Cancel(cancel) => encode_cancel(&IDS, cancel),
            Self::Progress(progress) => encode_progress(&IDS, progress),
        }
    }

    pub(crate) fn decode(kind: RecordKind, schemas: &Schemas, bytes: &[u8]) -> Result<Self, DecodeError> {
        match kind {
            RecordKind::Slip => decode_slip(schemas, bytes).map(Self::Slip),
            RecordKind::JobEvent => decode_event(schemas, bytes).map(Self::JobEvent),
            RecordKind::Wait => decode_wait(schemas, bytes).map(Self::Wait),
            RecordKind::Cancel => decode_cancel(schemas, bytes).map(Self::Cancel),
            RecordKind::Progress => decode_progress(schemas, bytes).map(Self::Progress),
        }
    }
}

/// Knows our own latest schemas under [`IDS`].
pub(crate) fn schemas() -> Schemas {
    let schemas = Schemas::new();
    schemas.insert_writers(&IDS);
    schemas
}

pub(crate) fn trace() -> Trace {
    Trace {
        context: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap(),
        state: Some("vendor=1".into()),
    }
}

fn job(last: u128) -> JobId {
    JobId::new(Uuid::from_u128(0x0190_a6f2_7c1e_7cc0_b1f1_0000_0000_0000 | last))
}

/// A slip in the middle of a three-step order.
pub(crate) fn slip() -> Slip {
    let completed = |step: &str, output: Option<Value>, uncertain| Completed {
        step: step.into(),
        visit: 1,
        output,
        uncertain,
        undone: false,
    };
    Slip {
        job: job(1),
        tenant: "acme".into(),
        flow: "order".into(),
        version: "0123456789ab".into(),
        key: "customer-1".into(),
        step: "ship".into(),
        phase: Phase::Forward,
        branch: String::new(),
        hop: 3,
        visit: 1,
        attempt: 0,
        attempt_uncertain: false,
        input: json!({"sku": "tea-é-\u{0}", "qty": 2, "total": 19.99, "customer_id": "customer-1"}),
        done: vec![
            completed("reserve", Some(json!({"id": "r-77", "left": 12})), false),
            completed("charge", None, true),
            completed("note", Some(Value::Null), false),
        ],
        failure: None,
        deadline_ms: None,
        accepted_at_ms: 1_753_000_000_123,
        correlation_id: "corr-1".into(),
        priority: 1,
        retry_of: None,
    }
}

/// A slip on its way back, with every optional field present.
pub(crate) fn failed_slip() -> Slip {
    let mut slip = slip();
    slip.done[2].undone = true;
    slip.failure = Some(Failure {
        step: "ship".into(),
        code: "step-failed".into(),
        message: "no truck".into(),
        status: Some(422),
        attempts: 3,
    });
    Slip {
        phase: Phase::Undo,
        step: "charge".into(),
        branch: "b-1".into(),
        hop: u32::MAX,
        visit: 2,
        attempt: 4,
        attempt_uncertain: true,
        deadline_ms: Some(-1),
        priority: 0,
        retry_of: Some(job(2)),
        ..slip
    }
}

fn event() -> JobEvent {
    JobEvent {
        job: job(1),
        tenant: "acme".into(),
        flow: "order".into(),
        version: "0123456789ab".into(),
        key: "customer-1".into(),
        correlation_id: "corr-1".into(),
        kind: EventKind::JobAccepted,
        status: JobStatus::Accepted,
        hop: 0,
        index: 0,
        branch: String::new(),
        step: None,
        phase: Phase::Forward,
        visit: 0,
        attempts: 0,
        at_ms: 1_753_000_000_123,
        accepted_at_ms: 1_753_000_000_123,
        steps_total: 3,
        retry_of: None,
        next_attempt_after_ms: None,
        data: None,
    }
}

fn retrying_event() -> JobEvent {
    JobEvent {
        kind: EventKind::StepRetrying,
        status: JobStatus::Waiting,
        hop: 3,
        index: 1,
        branch: "b-1".into(),
        step: Some("ship".into()),
        phase: Phase::Undo,
        visit: 2,
        attempts: 4,
        retry_of: Some(job(2)),
        next_attempt_after_ms: Some(u64::try_from(i64::MAX).unwrap()),
        data: Some(json!({"step": "ship", "code": "step-failed", "message": "no truck", "attempts": 4})),
        ..event()
    }
}

fn signal(payload: Option<Value>) -> Wait {
    let (name, id) = ("approval".into(), "key-1".into());
    Wait::Signal(Signal { job: job(1), tenant: "acme".into(), name, id, payload, at_ms: 1_753_000_000_123 })
}

const WORKER: &str = "host-1/0190a6f27c1e7cc0b1f1000000000009";

fn held(slip: Slip, reason: HoldReason) -> Hold {
    Hold { slip, queue: "shipping".into(), reason, release_after_ms: None }
}

fn running() -> Wait {
    let hold = held(failed_slip(), HoldReason::Running);
    Wait::Running(RunningCall { hold, worker: WORKER.into(), attempt: 5, lease_ms: 30_000 })
}

fn turn() -> Wait {
    let behind = TokenId { job: job(2), branch: "b:1".into(), hop: 7 };
    Wait::Turn(Turn { hold: held(slip(), HoldReason::Turn), behind, place: 12 })
}

fn outcome(records: Vec<Record>) -> Wait {
    let token = TokenId { job: job(1), branch: "b-1".into(), hop: 4 };
    let (tenant, lane) = ("acme".into(), "acme/order/customer-1".into());
    Wait::Outcome(Outcome { token, tenant, lane, worker: WORKER.into(), records })
}

/// Every optional part of a record is there once, and once not.
fn successors() -> Vec<Record> {
    let headers = vec![("traceparent".into(), Some(b"00-1-2-01".to_vec())), ("none".into(), None)];
    let (key, value) = (Some(b"acme/order/customer-1".to_vec()), Some(vec![0, 255, 1]));
    vec![
        Record { topic: "meanwhile.events".into(), key, value, headers },
        Record { topic: "meanwhile.cancels".into(), ..Record::default() },
    ]
}

fn alive() -> Wait {
    Wait::Alive(Alive { worker: WORKER.into(), lease_ms: 30_000, at_ms: 1_753_000_000_123 })
}

fn question() -> Wait {
    Wait::Question(Question { worker: WORKER.into(), round: 2, at_ms: 1_753_000_000_123 })
}

fn progress() -> Progress {
    Progress {
        job: job(1),
        tenant: "acme".into(),
        flow: "order".into(),
        kind: "percent".into(),
        step: Some("ship".into()),
        phase: Phase::Forward,
        branch: "b-1".into(),
        hop: 3,
        visit: 1,
        attempt: 2,
        percent: Some(100),
        message: Some("half way".into()),
        data: Some(json!([1, 2.5])),
        at_ms: 1_753_000_000_123,
    }
}

/// The fixed values by name; between them, each optional field is present once and absent once.
pub(crate) fn samples() -> Vec<(&'static str, Any)> {
    let hold =
        |slip, reason, release_after_ms| Wait::Hold(Hold { slip, queue: "shipping".into(), reason, release_after_ms });
    let bare_progress =
        Progress { kind: "started".into(), step: None, percent: None, message: None, data: None, ..progress() };
    let cancel = |reason: Option<&str>| Cancel {
        job: job(1),
        tenant: "acme".into(),
        requested_by: "ann".into(),
        reason: reason.map(str::to_owned),
        at_ms: 1_753_000_000_123,
    };
    vec![
        ("forward", Any::Slip(slip())),
        ("undo", Any::Slip(failed_slip())),
        ("accepted", Any::JobEvent(event())),
        ("retrying", Any::JobEvent(retrying_event())),
        ("backoff", Any::Wait(hold(slip(), HoldReason::Backoff, Some(30_000)))),
        ("attention", Any::Wait(hold(failed_slip(), HoldReason::Attention, None))),
        ("signal", Any::Wait(signal(Some(json!({"approved": true}))))),
        ("bare-signal", Any::Wait(signal(None))),
        ("running", Any::Wait(running())),
        ("turn", Any::Wait(turn())),
        ("outcome", Any::Wait(outcome(successors()))),
        ("handed-over", Any::Wait(outcome(vec![]))),
        ("alive", Any::Wait(alive())),
        ("question", Any::Wait(question())),
        ("bare", Any::Cancel(cancel(None))),
        ("with-reason", Any::Cancel(cancel(Some("changed my mind")))),
        ("started", Any::Progress(bare_progress)),
        ("percent", Any::Progress(progress())),
    ]
}
