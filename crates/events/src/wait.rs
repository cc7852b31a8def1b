//! Holds and signals: one topic, so that a hold and its signal meet in one place, in one order.

use std::borrow::Cow;

use flow::id::{JobId, TokenId};
use flow::slip::{Hold, HoldReason, Slip};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{DecodeError, EncodeError};
use crate::field::{job, long};
use crate::json::{Bytes, Json};

/// A record of `meanwhile.waits`.
#[expect(clippy::large_enum_variant, reason = "nearly all are holds, and none is kept for long")]
#[derive(Debug, Clone, PartialEq)]
pub enum Wait {
    /// A slip at rest. It is the job's token.
    Hold(Hold),
    /// It may release a hold. It may come before its hold.
    Signal(Signal),
}

impl Wait {
    /// Whose.
    pub const fn job(&self) -> JobId {
        match self {
            Self::Hold(hold) => hold.slip.job,
            Self::Signal(signal) => signal.job,
        }
    }
}

/// A message to a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// To whom.
    pub job: JobId,
    /// The job's tenant.
    pub tenant: String,
    /// The signal's name.
    pub name: String,
    /// Tells repetitions of one signal from another: the sender's idempotency key, or ours.
    pub id: String,
    /// Its payload.
    pub payload: Option<Value>,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// An operator's word that one parked token goes on. It travels as a signal whose id names the hold, so that a word
/// that is given twice, or comes late, never releases a later hold of the same job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The token that rests.
    pub token: TokenId,
    /// The job's tenant.
    pub tenant: String,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// The name of the signal that a [`Resume`] is. No flow waits for a signal with a dot in its name.
const RESUME: &str = "meanwhile.resume";

impl From<Resume> for Signal {
    fn from(resume: Resume) -> Self {
        let Resume { token: TokenId { job, branch, hop }, tenant, at_ms } = resume;
        let id = format!("{branch}:{hop}");
        let payload = Some(json!({ "branch": branch, "hop": hop }));
        Self { job, tenant, name: RESUME.to_owned(), id, payload, at_ms }
    }
}

impl Signal {
    /// The operator's word, if this signal is one.
    ///
    /// # Errors
    /// It is one, but names no hold.
    pub fn as_resume(&self) -> Result<Option<Resume>, DecodeError> {
        if self.name != RESUME {
            return Ok(None);
        }
        let payload = self.payload.as_ref().unwrap_or(&Value::Null);
        let hop = payload["hop"].as_u64().and_then(|hop| u32::try_from(hop).ok());
        let (Some(branch), Some(hop)) = (payload["branch"].as_str(), hop) else {
            return Err(DecodeError::field("payload", payload));
        };
        let token = TokenId { job: self.job, branch: branch.to_owned(), hop };
        Ok(Some(Resume { token, tenant: self.tenant.clone(), at_ms: self.at_ms }))
    }
}

const HOLD: &str = "hold";
const SIGNAL: &str = "signal";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Wait")]
pub(crate) struct WaitWire<'a> {
    kind: Cow<'a, str>,
    job: Cow<'a, str>,
    tenant: Cow<'a, str>,
    #[serde(default)]
    branch: Cow<'a, str>,
    #[serde(default)]
    hop: u32,
    #[serde(default)]
    reason: Option<Cow<'a, str>>,
    #[serde(default)]
    release_after_ms: Option<i64>,
    #[serde(default)]
    queue: Option<Cow<'a, str>>,
    #[serde(default)]
    slip: Option<Bytes>,
    #[serde(default)]
    signal: Option<Cow<'a, str>>,
    #[serde(default)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    payload: Option<Json<'a>>,
    #[serde(default)]
    at_ms: Option<i64>,
}

impl<'a> WaitWire<'a> {
    /// `slip`: a hold's slip, encoded.
    pub(crate) fn new(wait: &'a Wait, slip: Option<Vec<u8>>) -> Result<Self, EncodeError> {
        match wait {
            Wait::Hold(hold) => Self::from_hold(hold, slip),
            Wait::Signal(signal) => Self::from_signal(signal),
        }
    }

    fn from_hold(hold: &'a Hold, slip: Option<Vec<u8>>) -> Result<Self, EncodeError> {
        Ok(Self {
            kind: HOLD.into(),
            job: hold.slip.job.to_string().into(),
            tenant: hold.slip.tenant.as_str().into(),
            branch: hold.slip.branch.as_str().into(),
            hop: hold.slip.hop,
            reason: Some(hold.reason.as_str().into()),
            release_after_ms: hold.release_after_ms.map(|ms| long("release_after_ms", ms)).transpose()?,
            queue: Some(hold.queue.as_str().into()),
            slip: slip.map(Bytes),
            signal: None,
            id: None,
            payload: None,
            at_ms: None,
        })
    }

    fn from_signal(signal: &'a Signal) -> Result<Self, EncodeError> {
        Ok(Self {
            kind: SIGNAL.into(),
            job: signal.job.to_string().into(),
            tenant: signal.tenant.as_str().into(),
            branch: Cow::default(),
            hop: 0,
            reason: None,
            release_after_ms: None,
            queue: None,
            slip: None,
            signal: Some(signal.name.as_str().into()),
            id: Some(signal.id.as_str().into()),
            payload: Json::optional("payload", signal.payload.as_ref())?,
            at_ms: Some(signal.at_ms),
        })
    }

    /// The slip of a hold, still encoded.
    pub(crate) fn slip(&self) -> Option<&[u8]> {
        self.slip.as_ref().filter(|_| self.kind == HOLD).map(|slip| slip.0.as_slice())
    }

    /// `slip`: what [`Self::slip`] gave, decoded.
    pub(crate) fn into_wait(self, slip: Option<Slip>) -> Result<Wait, DecodeError> {
        match &*self.kind {
            HOLD => self.into_hold(slip).map(Wait::Hold),
            SIGNAL => self.into_signal().map(Wait::Signal),
            _ => Err(DecodeError::field("kind", &self.kind)),
        }
    }

    fn into_hold(self, slip: Option<Slip>) -> Result<Hold, DecodeError> {
        let reason = present("reason", self.reason)?;
        let slip = present("slip", slip)?;
        let duration = |ms: i64| u64::try_from(ms).map_err(|_| DecodeError::field("release_after_ms", ms));
        // Said twice, so that others can read it without the slip; it must be the same.
        if (slip.job, &*slip.branch, slip.hop) != (job("job", &self.job)?, &*self.branch, self.hop) {
            return Err(DecodeError::field("slip", format!("of {}:{}:{}", slip.job, slip.branch, slip.hop)));
        }
        Ok(Hold {
            slip,
            queue: present("queue", self.queue)?.into_owned(),
            reason: HoldReason::parse(&reason).ok_or_else(|| DecodeError::field("reason", &reason))?,
            release_after_ms: self.release_after_ms.map(duration).transpose()?,
        })
    }

    fn into_signal(self) -> Result<Signal, DecodeError> {
        Ok(Signal {
            job: job("job", &self.job)?,
            tenant: self.tenant.into_owned(),
            name: present("signal", self.signal)?.into_owned(),
            id: present("id", self.id)?.into_owned(),
            payload: self.payload.map(Json::into_value),
            at_ms: present("at_ms", self.at_ms)?,
        })
    }
}

fn present<T>(field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or_else(|| DecodeError::field(field, "null"))
}
