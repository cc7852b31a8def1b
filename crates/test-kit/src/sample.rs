//! Slips and events of no particular flow, for tests to change where it matters.

use flow::event::{EventKind, JobEvent, JobStatus};
use flow::id::JobId;
use flow::slip::{Phase, Slip};
use serde_json::json;
use uuid::Uuid;

/// A job id that nobody has.
pub fn sample_job() -> JobId {
    JobId::new(Uuid::now_v7())
}

/// A slip on its way to step `s` of flow `order`.
pub fn sample_slip(job: JobId, hop: u32) -> Slip {
    Slip {
        job,
        tenant: "default".to_owned(),
        flow: "order".to_owned(),
        version: "v".to_owned(),
        key: job.to_string(),
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
        accepted_at_ms: 0,
        correlation_id: String::new(),
        priority: 1,
        retry_of: None,
    }
}

/// An event of flow `order`.
pub fn sample_event(job: JobId, kind: EventKind, status: JobStatus, hop: u32) -> JobEvent {
    JobEvent {
        job,
        tenant: "default".to_owned(),
        flow: "order".to_owned(),
        version: "v".to_owned(),
        key: job.to_string(),
        correlation_id: String::new(),
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
        accepted_at_ms: 0,
        steps_total: 2,
        retry_of: None,
        next_attempt_after_ms: None,
        data: None,
    }
}
