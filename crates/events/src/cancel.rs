//! The request to cancel a job.

use std::borrow::Cow;

use flow::id::JobId;
use serde::{Deserialize, Serialize};

use crate::error::DecodeError;
use crate::field::job;

/// Asks the holder of the job's token to cancel the job. The topic is compacted: the last one per job counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancel {
    /// The job to cancel.
    pub job: JobId,
    /// The job's tenant.
    pub tenant: String,
    /// The person or system that asked.
    pub requested_by: String,
    /// The reason, in their words.
    pub reason: Option<String>,
    /// The time of the request, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Tells one wish from another.
    pub id: String,
    /// Features that whoever heeds it must have, by their words.
    pub requires: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Cancel")]
pub(crate) struct CancelWire<'a> {
    job: Cow<'a, str>,
    tenant: Cow<'a, str>,
    #[serde(default)]
    requested_by: Cow<'a, str>,
    #[serde(default)]
    reason: Option<Cow<'a, str>>,
    at_ms: i64,
    #[serde(default)]
    id: Cow<'a, str>,
    #[serde(default)]
    requires: Vec<Cow<'a, str>>,
}

impl<'a> From<&'a Cancel> for CancelWire<'a> {
    fn from(cancel: &'a Cancel) -> Self {
        Self {
            job: cancel.job.to_string().into(),
            tenant: cancel.tenant.as_str().into(),
            requested_by: cancel.requested_by.as_str().into(),
            reason: cancel.reason.as_deref().map(Cow::Borrowed),
            at_ms: cancel.at_ms,
            id: cancel.id.as_str().into(),
            requires: cancel.requires.iter().map(Cow::from).collect(),
        }
    }
}

impl TryFrom<CancelWire<'_>> for Cancel {
    type Error = DecodeError;

    fn try_from(wire: CancelWire<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            job: job("job", &wire.job)?,
            tenant: wire.tenant.into_owned(),
            requested_by: wire.requested_by.into_owned(),
            reason: wire.reason.map(Cow::into_owned),
            at_ms: wire.at_ms,
            id: wire.id.into_owned(),
            requires: wire.requires.into_iter().map(Cow::into_owned).collect(),
        })
    }
}
