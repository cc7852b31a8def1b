//! Records that tell of others: progress, and entries of the audit log.

use events::audit::{AuditAnswer, AuditEntry};
use events::progress::Progress;
use flow::slip::Phase;
use serde_json::json;

use crate::sample::job;

pub(crate) fn progress() -> Progress {
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

pub(crate) fn audit_asked() -> AuditEntry {
    AuditEntry {
        id: job(3).uuid(),
        tenant: "acme".into(),
        subject: "key:4f2a90c1d3e5b687".into(),
        action: "job.cancel".into(),
        object: job(1).to_string(),
        client: Some("192.0.2.7".into()),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        at_ms: 1_753_000_000_123,
        answer: None,
    }
}

pub(crate) fn audit_answered() -> AuditEntry {
    let answer = Some(AuditAnswer { status: 202, at_ms: 1_753_000_000_150 });
    AuditEntry { object: String::new(), client: None, trace_id: None, answer, ..audit_asked() }
}
