//! Fixed values to try things on.

use events::audit::AuditEntry;
use events::breaker::{BreakerNews, BreakerSaid, BreakerState};
use events::cancel::Cancel;
use events::headers::Headers;
use events::progress::Progress;
use events::record::Record;
use events::trace::Trace;
use events::wait::{Alive, Outcome, Question, Resume, RunningCall, Signal, Turn, Unread, UnreadRest, Wait};
use events::{
    DecodeError, EncodeError, RecordKind, Schemas, WriterIds, decode_audit_entry, decode_cancel, decode_event,
    decode_progress, decode_slip, decode_wait, encode_audit_entry, encode_cancel, encode_event, encode_progress,
    encode_slip, encode_wait,
};
use flow::answer::Body;
use flow::decide::{Said, Verdict, ruled};
use flow::event::{CarriedEvent, EventKind, JobEvent, JobStatus};
use flow::facts::JobFacts;
use flow::id::{JobId, TokenId};
use flow::slip::{
    Carried, CarriedStep, Completed, Failure, Hold, HoldReason, Phase, Released, ReleasedBy, Search, Slip,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answered::{answered, resting, succeeded};
use crate::told::{audit_answered, audit_asked, progress};

pub(crate) const IDS: WriterIds =
    WriterIds { slip: 1, job_event: 2, wait: 3, cancel: 0x0102_0304, progress: i32::MAX as u32, audit_entry: 4 };

/// Any of the records.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Any {
    Slip(Slip),
    JobEvent(JobEvent),
    Wait(Wait),
    Cancel(Cancel),
    Progress(Progress),
    AuditEntry(AuditEntry),
}

impl Any {
    pub(crate) fn kind(&self) -> RecordKind {
        match self {
            Self::Slip(_) => RecordKind::Slip,
            Self::JobEvent(_) => RecordKind::JobEvent,
            Self::Wait(_) => RecordKind::Wait,
            Self::Cancel(_) => RecordKind::Cancel,
            Self::Progress(_) => RecordKind::Progress,
            Self::AuditEntry(_) => RecordKind::AuditEntry,
        }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Slip(slip) => encode_slip(&IDS, slip),
            Self::JobEvent(event) => encode_event(&IDS, event),
            Self::Wait(wait) => encode_wait(&IDS, wait),
            Self::Cancel(cancel) => encode_cancel(&IDS, cancel),
            Self::Progress(progress) => encode_progress(&IDS, progress),
            Self::AuditEntry(entry) => encode_audit_entry(&IDS, entry),
        }
    }

    pub(crate) fn decode(kind: RecordKind, schemas: &Schemas, bytes: &[u8]) -> Result<Self, DecodeError> {
        match kind {
            RecordKind::Slip => decode_slip(schemas, bytes).map(Self::Slip),
            RecordKind::JobEvent => decode_event(schemas, bytes).map(Self::JobEvent),
            RecordKind::Wait => decode_wait(schemas, bytes).map(Self::Wait),
            RecordKind::Cancel => decode_cancel(schemas, bytes).map(Self::Cancel),
            RecordKind::Progress => decode_progress(schemas, bytes).map(Self::Progress),
            RecordKind::AuditEntry => decode_audit_entry(schemas, bytes).map(Self::AuditEntry),
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

pub(crate) fn job(last: u128) -> JobId {
    JobId::new(Uuid::from_u128(0x0190_a6f2_7c1e_7cc0_b1f1_0000_0000_0000 | last))
}

fn facts() -> JobFacts {
    JobFacts {
        job: job(1),
        tenant: "acme".into(),
        flow: "order".into(),
        version: "0123456789ab".into(),
        key: "customer-1".into(),
        correlation_id: "corr-1".into(),
        accepted_at_ms: 1_753_000_000_123,
        retry_of: None,
    }
}

/// A slip in the middle of a three-step order.
pub(crate) fn slip() -> Slip {
    let completed = |step: &str, output: Option<Value>, uncertain| Completed {
        step: step.into(),
        visit: 1,
        output,
        uncertain,
        undone: false,
        carried: CarriedStep::default(),
    };
    Slip {
        facts: facts(),
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
        priority: 1,
        search: None,
        released: None,
        step_state: None,
        step_left_ms: None,
        visits: Vec::new(),
        requires: Vec::new(),
        answers: Vec::new(),
        carried: Carried::default(),
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
        facts: JobFacts { retry_of: Some(job(2)), ..slip.facts },
        ..slip
    }
}

pub(crate) fn carrying_slip() -> Slip {
    let mut slip = slip();
    slip.done[0].carried = CarriedStep {
        branch: "b-1".into(),
        sequence: 2,
        ended_at_ms: Some(1_753_000_000_100),
        error_code: Some("step-failed".into()),
    };
    let carried = Carried {
        check_when: true,
        run: "run-1".into(),
        join: Some("all-shipped".into()),
        item: Some(4),
        sequence: 3,
        input_ref: Some("store/1".into()),
        not_before_ms: Some(1_753_000_000_200),
    };
    let search = Some(Search { looks: 5, missing: "`env.CARRIER` is not configured at this worker".into() });
    let released = Some(Released { by: ReleasedBy::Signal, payload: Some(json!({"approved": true})) });
    let visits = vec![("ship".into(), 7)];
    Slip { search, released, visits, carried, ..slip }
}

fn carrying_event() -> JobEvent {
    let text = |text: &str| Some(text.to_owned());
    let carried =
        CarriedEvent { branch_status: text("waiting"), queue: text("shipping"), deadline_ms: Some(1_753_000_000_200) };
    let (signal, actor) = (text("approval"), text("ann"));
    JobEvent { reason: Some(HoldReason::Signal), signal, actor, carried, ..retrying_event() }
}

pub(crate) fn event() -> JobEvent {
    JobEvent {
        facts: facts(),
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
        steps_total: 3,
        next_attempt_after_ms: None,
        data: None,
        reason: None,
        signal: None,
        actor: None,
        answer: None,
        carried: CarriedEvent::default(),
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
        facts: JobFacts { retry_of: Some(job(2)), ..event().facts },
        next_attempt_after_ms: Some(u64::try_from(i64::MAX).unwrap()),
        data: Some(json!({"step": "ship", "code": "step-failed", "message": "no truck", "attempts": 4})),
        ..event()
    }
}

/// A token that waits for a signal.
fn waiting() -> Wait {
    let released = Some(Released { by: ReleasedBy::Time, payload: None });
    let (slip, queue, signal) = (Slip { released, ..slip() }, "shipping".into(), Some("approval".into()));
    Wait::Hold(Hold { slip, queue, reason: HoldReason::Signal, release_after_ms: Some(60_000), signal, limit: None })
}

fn signal(payload: Option<Value>) -> Wait {
    let (name, id) = ("approval".into(), "key-1".into());
    Wait::Signal(Signal { job: job(1), tenant: "acme".into(), name, id, payload, at_ms: 1_753_000_000_123 })
}

fn verdict() -> Verdict {
    Verdict { said: Said::Succeeded(json!({"id": "C-1"})), by: "ann".into() }
}

/// An operator's word on how a step has ended.
fn resume() -> Wait {
    let token = TokenId { job: job(1), branch: "b-1".into(), hop: 4 };
    let at_ms = 1_753_000_000_123;
    Wait::Signal(Resume { token, tenant: "acme".into(), verdict: Some(verdict()), at_ms }.into())
}

const WORKER: &str = "host-1/0190a6f27c1e7cc0b1f1000000000009";

fn held(slip: Slip, reason: HoldReason) -> Hold {
    Hold { slip, queue: "shipping".into(), reason, release_after_ms: None, signal: None, limit: None }
}

fn running() -> Wait {
    let hold = held(failed_slip(), HoldReason::Running);
    Wait::Running(RunningCall { hold, worker: WORKER.into(), attempt: 5, lease_ms: 30_000 })
}

fn turn() -> Wait {
    let behind = TokenId { job: job(2), branch: "b:1".into(), hop: 7 };
    Wait::Turn(Turn { hold: held(slip(), HoldReason::Turn), behind, place: 12 })
}

fn unread(rest: UnreadRest) -> Wait {
    let token = TokenId { job: job(1), branch: "b-1".into(), hop: 4 };
    let [record, _] = successors().try_into().expect("two");
    let (lane, read_at) = ("acme/order/customer-1".into(), "meanwhile.steps.shipping/3/42".into());
    Wait::Unread(Unread { token, lane, read_at, record, rest })
}

fn outcome(records: Vec<Record>) -> Wait {
    let token = TokenId { job: job(1), branch: "b-1".into(), hop: 4 };
    let (tenant, lane) = ("acme".into(), "acme/order/customer-1".into());
    Wait::Outcome(Outcome { token, tenant, lane, worker: WORKER.into(), records })
}

/// Every optional part of a record is there once, and once not.
fn successors() -> Vec<Record> {
    let headers = Headers::from([("traceparent", Some("00-1-2-01")), ("none", None)]);
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

fn breaker(said: BreakerSaid) -> Wait {
    let (downstream, id) = ("payment:8080".into(), "6f1e9b1c".into());
    Wait::Breaker(BreakerNews { downstream, said, id, at_ms: 1_753_000_000_123 })
}

/// A token that waits for a breaker.
fn held_back() -> Wait {
    Wait::Hold(Hold { limit: Some("payment:8080".into()), ..held(slip(), HoldReason::Breaker) })
}

/// The fixed values by name; between them, each optional field is present once and absent once.
pub(crate) fn samples() -> Vec<(&'static str, Any)> {
    let hold = |slip, reason, release_after_ms| {
        Wait::Hold(Hold { slip, queue: "shipping".into(), reason, release_after_ms, signal: None, limit: None })
    };
    let bare_progress =
        Progress { kind: "started".into(), step: None, percent: None, message: None, data: None, ..progress() };
    let cancel = |reason: Option<&str>| Cancel {
        job: job(1),
        tenant: "acme".into(),
        requested_by: "ann".into(),
        reason: reason.map(str::to_owned),
        at_ms: 1_753_000_000_123,
        id: String::new(),
        requires: Vec::new(),
    };
    let named = Cancel { id: "key-1".into(), requires: vec!["branches".into()], ..cancel(None) };
    let (state, reason) = (Some(BreakerState::Open), Some("maintenance".into()));
    let order = BreakerSaid::Order { state, reason, by: "ann".into() };
    vec![
        ("forward", Any::Slip(slip())),
        ("undo", Any::Slip(failed_slip())),
        ("carrying", Any::Slip(carrying_slip())),
        ("resting", Any::Slip(resting())),
        ("ruled", Any::Slip(ruled(slip(), &verdict()))),
        ("answered", Any::Slip(answered())),
        ("accepted", Any::JobEvent(event())),
        ("retrying", Any::JobEvent(retrying_event())),
        ("carrying", Any::JobEvent(carrying_event())),
        ("stuck", Any::JobEvent(event().stuck(JobStatus::Running, 4_711, 1_753_000_900_123))),
        ("succeeded", Any::JobEvent(succeeded(Body::OfResult))),
        ("succeeded-value", Any::JobEvent(succeeded(Body::Value(json!({"rows": null}))))),
        ("succeeded-bytes", Any::JobEvent(succeeded(Body::Bytes(b"\0%PDF\xff\n".to_vec())))),
        ("backoff", Any::Wait(hold(slip(), HoldReason::Backoff, Some(30_000)))),
        ("attention", Any::Wait(hold(failed_slip(), HoldReason::Attention, None))),
        ("signal", Any::Wait(signal(Some(json!({"approved": true}))))),
        ("bare-signal", Any::Wait(signal(None))),
        ("verdict", Any::Wait(resume())),
        ("approval", Any::Wait(signal(Some(json!({"approved": true}))))),
        ("waiting", Any::Wait(waiting())),
        ("running", Any::Wait(running())),
        ("turn", Any::Wait(turn())),
        ("unread", Any::Wait(unread(UnreadRest::Until(10_000)))),
        (
            "unread-turn",
            Any::Wait(unread(UnreadRest::Behind(TokenId { job: job(2), branch: "b:1".into(), hop: 7 }, 12))),
        ),
        ("outcome", Any::Wait(outcome(successors()))),
        ("handed-over", Any::Wait(outcome(vec![]))),
        ("alive", Any::Wait(alive())),
        ("question", Any::Wait(question())),
        ("held-back", Any::Wait(held_back())),
        ("breaker-failing", Any::Wait(breaker(BreakerSaid::Failing { epoch: 3, calls: 40, failures: 21 }))),
        ("breaker-probed", Any::Wait(breaker(BreakerSaid::Probed { epoch: 4, answered: true }))),
        ("breaker-order", Any::Wait(breaker(order))),
        ("bare", Any::Cancel(cancel(None))),
        ("with-reason", Any::Cancel(cancel(Some("changed my mind")))),
        ("named", Any::Cancel(named)),
        ("started", Any::Progress(bare_progress)),
        ("percent", Any::Progress(progress())),
        ("asked", Any::AuditEntry(audit_asked())),
        ("audit-answered", Any::AuditEntry(audit_answered())),
    ]
}
