//! An entry of the audit log: a request that changes something.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::DecodeError;

/// A request that changes something. It is told twice: before it is carried out, and once it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// The id of the entry, a UUIDv7. Both records have it.
    pub id: Uuid,
    /// The tenant of the caller.
    pub tenant: String,
    /// The caller.
    pub subject: String,
    /// The action, such as `job.cancel`.
    pub action: String,
    /// The object; empty where the request chooses several.
    pub object: String,
    /// The client's address, as far as that can be known.
    pub client: Option<String>,
    /// The trace of the request.
    pub trace_id: Option<String>,
    /// The time of the request, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The answer; none: the request is about to be carried out.
    pub answer: Option<AuditAnswer>,
}

/// The end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditAnswer {
    /// The status of the answer.
    pub status: u16,
    /// The time of the answer, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

impl AuditEntry {
    /// The record's message id.
    pub fn message_id(&self) -> String {
        format!("{}:audit{}", self.id, if self.answer.is_some() { ":answered" } else { "" })
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "AuditEntry")]
pub(crate) struct AuditEntryWire<'a> {
    id: Cow<'a, str>,
    tenant: Cow<'a, str>,
    subject: Cow<'a, str>,
    action: Cow<'a, str>,
    #[serde(default)]
    object: Cow<'a, str>,
    #[serde(default)]
    client: Option<Cow<'a, str>>,
    #[serde(default)]
    trace_id: Option<Cow<'a, str>>,
    at_ms: i64,
    #[serde(default)]
    status: Option<i32>,
    #[serde(default)]
    ended_at_ms: Option<i64>,
}

impl<'a> From<&'a AuditEntry> for AuditEntryWire<'a> {
    fn from(entry: &'a AuditEntry) -> Self {
        Self {
            id: entry.id.to_string().into(),
            tenant: entry.tenant.as_str().into(),
            subject: entry.subject.as_str().into(),
            action: entry.action.as_str().into(),
            object: entry.object.as_str().into(),
            client: entry.client.as_deref().map(Cow::Borrowed),
            trace_id: entry.trace_id.as_deref().map(Cow::Borrowed),
            at_ms: entry.at_ms,
            status: entry.answer.map(|answer| answer.status.into()),
            ended_at_ms: entry.answer.map(|answer| answer.at_ms),
        }
    }
}

impl TryFrom<AuditEntryWire<'_>> for AuditEntry {
    type Error = DecodeError;

    fn try_from(wire: AuditEntryWire<'_>) -> Result<Self, DecodeError> {
        let status = |status: i32| u16::try_from(status).map_err(|_| DecodeError::field("status", status));
        let answer = |status| AuditAnswer { status, at_ms: wire.ended_at_ms.unwrap_or(wire.at_ms) };
        Ok(Self {
            id: Uuid::parse_str(&wire.id).map_err(|_| DecodeError::field("id", &wire.id))?,
            answer: wire.status.map(status).transpose()?.map(answer),
            tenant: wire.tenant.into_owned(),
            subject: wire.subject.into_owned(),
            action: wire.action.into_owned(),
            object: wire.object.into_owned(),
            client: wire.client.map(Cow::into_owned),
            trace_id: wire.trace_id.map(Cow::into_owned),
            at_ms: wire.at_ms,
        })
    }
}
