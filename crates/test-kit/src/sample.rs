//! Slips and events of no particular flow, for tests to change where it matters.

use flow::event::{CarriedEvent, EventKind, JobEvent, JobStatus};
use flow::facts::JobFacts;
use flow::id::JobId;
use flow::slip::{Carried, Phase, Slip};
use serde_json::json;
use uuid::Uuid;

/// A job id that nobody has.
pub fn sample_job() -> JobId {
    JobId::new(Uuid::now_v7())
}

fn facts(job: JobId) -> JobFacts {
    JobFacts {
        job,
        tenant: "default".to_owned(),
        flow: "order".to_owned(),
        version: "v".to_owned(),
        key: job.to_string(),
        correlation_id: String::new(),
        accepted_at_ms: 0,
        retry_of: None,
    }
}

/// A slip on its way to step `s` of flow `order`.
pub fn sample_slip(job: JobId, hop: u32) -> Slip {
    Slip {
        facts: facts(job),
        step: "s".to_owned(),
        phase: Phase::Forward,
        branch: String::new(),
        hop,
        visit: 1,
        attempt: 0,
        attempt_uncertain: false,
        input: json!({ "a": 1 }),
        done: vec![],
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

/// An event of flow `order`.
pub fn sample_event(job: JobId, kind: EventKind, status: JobStatus, hop: u32) -> JobEvent {
    JobEvent {
        facts: facts(job),
        kind,
        status,
        hop,
        index: 0,
        branch: String::new(),
        step: None,
        phase: Phase::Forward,
        visit: 1,
        attempts: 1,
        at_ms: 0,
        steps_total: 2,
        next_attempt_after_ms: None,
        data: None,
        reason: None,
        signal: None,
        actor: None,
        answer: None,
        carried: CarriedEvent::default(),
    }
}
