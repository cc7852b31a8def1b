//! Strategies that draw any record.

use events::audit::{AuditAnswer, AuditEntry};
use events::cancel::Cancel;
use events::progress::Progress;
use events::record::Record;
use events::wait::{Alive, Outcome, Question, RunningCall, Signal, Turn, Unread, UnreadRest, Wait};
use flow::answer::{Answer, Body, StepAnswer};
use flow::event::{CarriedEvent, EventKind, JobEvent, JobStatus};
use flow::facts::JobFacts;
use flow::id::{JobId, TokenId};
use flow::slip::{
    Carried, CarriedStep, Completed, Failure, Hold, HoldReason, Phase, Released, ReleasedBy, Search, Slip,
};
use proptest::prelude::*;
use serde_json::Value;
use uuid::Uuid;

use crate::sample::Any;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn any_job() -> impl Strategy<Value = JobId> {
    any::<u128>().prop_map(|bits| JobId::new(Uuid::from_u128(bits)))
}

fn any_phase() -> impl Strategy<Value = Phase> {
    prop_oneof![Just(Phase::Forward), Just(Phase::Undo)]
}

fn any_completed() -> BoxedStrategy<Completed> {
    let carried = (any::<String>(), any::<i64>(), any::<Option<i64>>(), any::<Option<String>>()).prop_map(
        |(branch, sequence, ended_at_ms, error_code)| CarriedStep { branch, sequence, ended_at_ms, error_code },
    );
    let known = (any::<String>(), any::<u32>(), prop::option::of(any_json()), any::<bool>(), any::<bool>());
    (known, carried)
        .prop_map(|((step, visit, output, uncertain, undone), carried)| Completed {
            step,
            visit,
            output,
            uncertain,
            undone,
            carried,
        })
        .boxed()
}

fn any_carried() -> BoxedStrategy<Carried> {
    let texts = (any::<[Option<String>; 2]>(), any::<String>());
    let numbers = (any::<[Option<i64>; 2]>(), any::<i64>(), any::<bool>());
    (texts, numbers)
        .prop_map(|(([join, input_ref], run), numbers)| {
            let ([item, not_before_ms], sequence, check_when) = numbers;
            Carried { check_when, run, join, item, sequence, input_ref, not_before_ms }
        })
        .boxed()
}

fn any_step_answer() -> impl Strategy<Value = StepAnswer> {
    let headers = prop::collection::btree_map(any::<String>(), any::<String>(), 0..3);
    (any::<String>(), any::<u32>(), any::<u16>(), headers).prop_map(|(step, visit, status, headers)| StepAnswer {
        step,
        visit,
        status,
        headers: headers.into_iter().collect(),
    })
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let headers = prop::collection::vec((any::<String>(), any::<String>()), 0..3);
    let body =
        prop_oneof![Just(Body::OfResult), any_json().prop_map(Body::Value), any::<Vec<u8>>().prop_map(Body::Bytes),];
    (any::<u16>(), headers, body).prop_map(|(status, headers, body)| Answer { status, headers, body })
}

fn any_released() -> impl Strategy<Value = Option<Released>> {
    let by = prop_oneof![
        prop::sample::select(&ReleasedBy::ALL[..]),
        "[a-z0-9._-]{1,31}".prop_map(|word| ReleasedBy::read(&word).unwrap()),
    ];
    prop::option::of((by, prop::option::of(any_json())).prop_map(|(by, payload)| Released { by, payload }))
}

fn any_search() -> impl Strategy<Value = Option<Search>> {
    prop::option::of((any::<u32>(), any::<String>()).prop_map(|(looks, missing)| Search { looks, missing }))
}

fn any_failure() -> impl Strategy<Value = Failure> {
    (any::<String>(), any::<String>(), any::<String>(), any::<Option<u16>>(), any::<u32>())
        .prop_map(|(step, code, message, status, attempts)| Failure { step, code, message, status, attempts })
}

pub(crate) fn any_slip() -> BoxedStrategy<Slip> {
    let texts = prop::array::uniform7(any::<String>());
    let numbers = (any::<[u32; 3]>(), any::<bool>(), any::<Option<i64>>(), any::<i64>(), any::<u8>());
    let jobs = (any_job(), prop::option::of(any_job()));
    let parts =
        (any_phase(), any_json(), prop::collection::vec(any_completed(), 0..4), prop::option::of(any_failure()));
    let visits = prop::collection::vec((any::<String>(), any::<u32>()), 0..3);
    let of_step = (prop::option::of(any_json()), any::<Option<i64>>());
    let answers = prop::collection::vec(any_step_answer(), 0..3);
    let later = (any_search(), any_released(), visits, any_carried(), of_step, answers);
    (texts, numbers, jobs, parts, later)
        .prop_map(|(texts, numbers, jobs, parts, (search, released, visits, carried, of_step, answers))| {
            let [tenant, flow, version, key, step, branch, correlation_id] = texts;
            let ([hop, visit, attempt], attempt_uncertain, deadline_ms, accepted_at_ms, priority) = numbers;
            let (job, retry_of) = jobs;
            let (phase, input, done, failure) = parts;
            let (step_state, step_left_ms) = of_step;
            Slip {
                facts: JobFacts { job, tenant, flow, version, key, correlation_id, accepted_at_ms, retry_of },
                step,
                phase,
                branch,
                hop,
                visit,
                attempt,
                attempt_uncertain,
                input,
                done,
                failure,
                deadline_ms,
                priority,
                search,
                released,
                step_state,
                step_left_ms,
                visits,
                requires: Vec::new(),
                answers,
                carried,
            }
        })
        .boxed()
}

pub(crate) fn any_event() -> BoxedStrategy<JobEvent> {
    let texts = prop::array::uniform6(any::<String>());
    let numbers = (any::<[u32; 5]>(), any::<[i64; 2]>(), prop::option::of(0..=i64::MAX as u64));
    let jobs = (any_job(), prop::option::of(any_job()));
    let kind = prop_oneof![
        prop::sample::select(&EventKind::ALL[..]),
        "[a-z0-9._-]{1,31}".prop_map(|word| EventKind::read(&word).unwrap()),
    ];
    let status = prop_oneof![
        prop::sample::select(&JobStatus::ALL[..]),
        "[a-z0-9._-]{1,31}".prop_map(|word| JobStatus::read(&word).unwrap()),
    ];
    let words = (kind, status, any_phase());
    let carried = (any::<[Option<String>; 2]>(), any::<Option<i64>>()).prop_map(|(texts, deadline_ms)| {
        let [branch_status, queue] = texts;
        CarriedEvent { branch_status, queue, deadline_ms }
    });
    let rest = (prop::option::of(prop::sample::select(&HoldReason::ALL[..])), any::<[Option<String>; 2]>());
    let parts = (any::<Option<String>>(), prop::option::of(any_json()), rest, carried, prop::option::of(any_answer()));
    (texts, numbers, jobs, words, parts)
        .prop_map(|(texts, numbers, (job, retry_of), (kind, status, phase), parts)| {
            let [tenant, flow, version, key, branch, correlation_id] = texts;
            let ([hop, index, visit, attempts, steps_total], [at_ms, accepted_at_ms], next_attempt_after_ms) = numbers;
            let (step, data, (reason, [signal, actor]), carried, answer) = parts;
            JobEvent {
                facts: JobFacts { job, tenant, flow, version, key, correlation_id, accepted_at_ms, retry_of },
                kind,
                status,
                hop,
                index,
                branch,
                step,
                phase,
                visit,
                attempts,
                at_ms,
                steps_total,
                next_attempt_after_ms,
                data,
                reason,
                signal,
                actor,
                answer,
                carried,
            }
        })
        .boxed()
}

fn any_hold(reasons: &'static [HoldReason]) -> impl Strategy<Value = Hold> {
    (any_slip(), any::<String>(), prop::sample::select(reasons), prop::option::of(0..=i64::MAX as u64)).prop_map(
        |(slip, queue, reason, release_after_ms)| Hold {
            slip,
            queue,
            reason,
            release_after_ms,
            signal: None,
            limit: None,
        },
    )
}

fn any_token() -> impl Strategy<Value = TokenId> {
    (any_job(), any::<String>(), any::<u32>()).prop_map(|(job, branch, hop)| TokenId { job, branch, hop })
}

fn any_successor() -> impl Strategy<Value = Record> {
    let headers = prop::collection::vec((any::<String>(), any::<Option<Vec<u8>>>()), 0..3);
    (any::<String>(), any::<[Option<Vec<u8>>; 2]>(), headers).prop_map(|(topic, [key, value], headers)| Record {
        topic,
        key,
        value,
        headers: headers.into_iter().collect(),
    })
}

fn any_long_call() -> impl Strategy<Value = Wait> {
    let lease = 0..=i64::MAX as u64;
    // Nobody is called nothing.
    let worker = "\\PC+";
    let running = (any_hold(&[HoldReason::Running]), worker, any::<u32>(), lease.clone())
        .prop_map(|(hold, worker, attempt, lease_ms)| Wait::Running(RunningCall { hold, worker, attempt, lease_ms }));
    let turn = (any_hold(&[HoldReason::Turn]), any_token(), any::<u32>())
        .prop_map(|(hold, behind, place)| Wait::Turn(Turn { hold, behind, place }));
    let outcome = (any_token(), any::<[String; 2]>(), worker, prop::collection::vec(any_successor(), 0..3)).prop_map(
        |(token, [tenant, lane], worker, records)| Wait::Outcome(Outcome { token, tenant, lane, worker, records }),
    );
    let alive = (worker, lease, any::<i64>())
        .prop_map(|(worker, lease_ms, at_ms)| Wait::Alive(Alive { worker, lease_ms, at_ms }));
    let question = (worker, any::<u32>(), any::<i64>())
        .prop_map(|(worker, round, at_ms)| Wait::Question(Question { worker, round, at_ms }));
    let until = (0..=i64::MAX as u64).prop_map(UnreadRest::Until);
    let behind = (any_token(), any::<u32>()).prop_map(|(token, place)| UnreadRest::Behind(token, place));
    let unread = (any_token(), any::<[String; 2]>(), any_successor(), prop_oneof![until, behind])
        .prop_map(|(token, [lane, read_at], record, rest)| Wait::Unread(Unread { token, lane, read_at, record, rest }));
    prop_oneof![running, turn, unread, outcome, alive, question]
}

fn any_wait() -> impl Strategy<Value = Wait> {
    let hold = any_hold(&[
        HoldReason::Backoff,
        HoldReason::Attention,
        HoldReason::MissingStep,
        HoldReason::Room,
        HoldReason::Timer,
        HoldReason::Signal,
    ]);
    let signal = (any_job(), any::<[String; 3]>(), prop::option::of(any_json()), any::<i64>())
        .prop_map(|(job, [tenant, name, id], payload, at_ms)| Signal { job, tenant, name, id, payload, at_ms });
    prop_oneof![hold.prop_map(Wait::Hold), signal.prop_map(Wait::Signal), any_long_call()]
}

fn any_cancel() -> impl Strategy<Value = Cancel> {
    let requires = prop::collection::vec(any::<String>(), 0..3);
    (any_job(), any::<[String; 3]>(), any::<Option<String>>(), any::<i64>(), requires).prop_map(
        |(job, [tenant, requested_by, id], reason, at_ms, requires)| Cancel {
            job,
            tenant,
            requested_by,
            reason,
            at_ms,
            id,
            requires,
        },
    )
}

fn any_progress() -> impl Strategy<Value = Progress> {
    let options = (any::<Option<String>>(), any::<Option<u8>>(), any::<Option<String>>(), prop::option::of(any_json()));
    (any_job(), any::<[String; 4]>(), any::<[u32; 3]>(), any_phase(), options, any::<i64>()).prop_map(
        |(job, [tenant, flow, kind, branch], [hop, visit, attempt], phase, (step, percent, message, data), at_ms)| {
            Progress {
                job,
                tenant,
                flow,
                kind,
                step,
                phase,
                branch,
                hop,
                visit,
                attempt,
                percent,
                message,
                data,
                at_ms,
            }
        },
    )
}

fn any_audit_entry() -> impl Strategy<Value = AuditEntry> {
    let answer = (any::<u16>(), any::<i64>()).prop_map(|(status, at_ms)| AuditAnswer { status, at_ms });
    let optional = (any::<[Option<String>; 2]>(), prop::option::of(answer));
    (any::<u128>(), any::<[String; 4]>(), optional, any::<i64>()).prop_map(
        |(id, [tenant, subject, action, object], ([client, trace_id], answer), at_ms)| {
            let id = Uuid::from_u128(id);
            AuditEntry { id, tenant, subject, action, object, client, trace_id, at_ms, answer }
        },
    )
}

pub(crate) fn any_record() -> impl Strategy<Value = Any> {
    prop_oneof![
        any_slip().prop_map(Any::Slip),
        any_event().prop_map(Any::JobEvent),
        any_wait().prop_map(Any::Wait),
        any_cancel().prop_map(Any::Cancel),
        any_progress().prop_map(Any::Progress),
        any_audit_entry().prop_map(Any::AuditEntry),
    ]
}
