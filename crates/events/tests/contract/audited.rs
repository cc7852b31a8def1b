//! Entries of the audit log.

use events::audit::{AuditAnswer, AuditEntry};

use crate::sample::job;

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
