//! Holds, and the records that may release them. They share one topic, so that a hold and the record that it waits for
//! are in one partition, in one order.

use flow::decide::{VERDICTS, Verdict};
use flow::id::{JobId, TokenId};
use flow::slip::{Hold, HoldReason};
use serde_json::{Value, json};

use crate::breaker::BreakerNews;
use crate::cancel::Cancel;
use crate::error::DecodeError;
use crate::field::{CANCELS, SIGNALS};
use crate::record::Record;

mod wire;

pub(crate) use wire::WaitWire;

/// A record of `meanwhile.waits`.
#[derive(Debug, Clone, PartialEq)]
pub enum Wait {
    /// A slip at rest. It is the job's token.
    Hold(Hold),
    /// A slip whose step a worker has under way, apart from its queue. It is the job's token.
    Running(RunningCall),
    /// A slip that waits for its turn behind a running one. It is the job's token.
    Turn(Turn),
    /// A slip that no worker could read when its turn came. It is the job's token.
    Unread(Unread),
    /// A message to a job; it may release a hold. It may come before its hold.
    Signal(Signal),
    /// The end of a running step. It comes after its hold.
    Outcome(Outcome),
    /// A sign of life of a worker.
    Alive(Alive),
    /// A question to a worker that was silent: its sign of life, if there is one, stands before the next question.
    Question(Question),
    /// News of the breaker of a downstream.
    Breaker(BreakerNews),
}

impl Wait {
    /// The job, where the record belongs to one.
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::Hold(hold) | Self::Running(RunningCall { hold, .. }) | Self::Turn(Turn { hold, .. }) => {
                Some(hold.slip.job)
            }
            Self::Signal(signal) => Some(signal.job),
            Self::Outcome(outcome) => Some(outcome.token.job),
            Self::Unread(unread) => Some(unread.token.job),
            Self::Alive(_) | Self::Question(_) | Self::Breaker(_) => None,
        }
    }

    /// The token at rest, where the record is one and says what it is.
    pub const fn hold(&self) -> Option<&Hold> {
        match self {
            Self::Hold(hold) | Self::Running(RunningCall { hold, .. }) | Self::Turn(Turn { hold, .. }) => Some(hold),
            Self::Unread(_)
            | Self::Signal(_)
            | Self::Outcome(_)
            | Self::Alive(_)
            | Self::Question(_)
            | Self::Breaker(_) => None,
        }
    }

    /// The record's key. Tokens that must keep an order among each other share one, and so a partition.
    pub fn key(&self) -> String {
        match self {
            // It holds its lane, so it comes before the turns in it.
            Self::Hold(hold) if hold.reason == HoldReason::Room => hold.slip.record_key(),
            Self::Hold(hold) => hold.slip.job.to_string(),
            Self::Running(RunningCall { hold, .. }) | Self::Turn(Turn { hold, .. }) => hold.slip.record_key(),
            Self::Signal(signal) => signal.job.to_string(),
            Self::Outcome(Outcome { lane, .. }) | Self::Unread(Unread { lane, .. }) => lane.clone(),
            Self::Alive(Alive { worker, .. }) | Self::Question(Question { worker, .. }) => worker.clone(),
            Self::Breaker(news) => news.downstream.clone(),
        }
    }

    /// The record's identity, the same however often it is produced.
    pub fn message_id(&self) -> String {
        match self {
            Self::Hold(hold) | Self::Running(RunningCall { hold, .. }) | Self::Turn(Turn { hold, .. }) => {
                format!("{}:hold", hold.slip.token())
            }
            Self::Signal(signal) => format!("{}:signal:{}:{}", signal.job, signal.name, signal.id),
            Self::Unread(unread) => format!("{}:unread:{}", unread.token, unread.read_at),
            Self::Outcome(outcome) => format!("{}:outcome:{}", outcome.token, outcome.worker),
            Self::Alive(alive) => format!("{}:alive:{}", alive.worker, alive.at_ms),
            Self::Question(question) => format!("{}:question:{}:{}", question.worker, question.round, question.at_ms),
            Self::Breaker(news) => format!("{}:breaker:{}", news.downstream, news.id),
        }
    }
}

/// A step that has run for long: its worker has committed it as begun and goes on with it, whatever happens to the
/// partition that the slip came from. The hold's slip is sent again if the worker is lost.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningCall {
    /// The token at rest.
    pub hold: Hold,
    /// The worker, as `instance/start`.
    pub worker: String,
    /// The attempt under way, from 1.
    pub attempt: u32,
    /// After so long a silence the worker counts as lost.
    pub lease_ms: u64,
}

/// A slip whose ordering key is taken in its queue: it rests until the token before it is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// The token at rest.
    pub hold: Hold,
    /// The running token that it waits for.
    pub behind: TokenId,
    /// Its place in the lane, from 1.
    pub place: u32,
}

/// A slip that cannot be read while the schema registry does not answer. It rests as it is; it is sent again, and read
/// then.
#[derive(Debug, Clone, PartialEq)]
pub struct Unread {
    /// The token inside, as the record's message id has it; of a record without one, its place stands for it.
    pub token: TokenId,
    /// The record key.
    pub lane: String,
    /// The place where it was read, as `<topic>/<partition>/<offset>`.
    pub read_at: String,
    /// The slip's record.
    pub record: Record,
    /// The reason for its rest.
    pub rest: UnreadRest,
}

/// The reason for which a slip that cannot be read rests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnreadRest {
    /// It was its turn. It holds its lane, and is sent again after so many milliseconds.
    Until(u64),
    /// It waits for its turn, behind this token, in this place.
    Behind(TokenId, u32),
}

/// The outcome of a running step. The successor records are sent if the token still rests as the hold of this worker;
/// otherwise another worker has the step, and this outcome is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The token at rest.
    pub token: TokenId,
    /// Its tenant.
    pub tenant: String,
    /// The record key of its slip.
    pub lane: String,
    /// The worker that made the call.
    pub worker: String,
    /// The records that follow: events, and the next slip or hold unless the job has ended. Empty: the worker stops,
    /// and hands the call over.
    pub records: Vec<Record>,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alive {
    /// The worker, as `instance/start`. Earlier starts of the same instance are over.
    pub worker: String,
    /// After so long a silence it counts as lost.
    pub lease_ms: u64,
    /// The time in milliseconds since the Unix epoch, by the worker's clock. No decision depends on it.
    pub at_ms: i64,
}

/// A question to a silent worker. It goes through the same partition as the signs of life, so that a reader of it has
/// read every sign of life before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The worker.
    pub worker: String,
    /// The number of the question, from 1; a worker that is silent through the last round is lost.
    pub round: u32,
    /// The time in milliseconds since the Unix epoch, by the asker's clock. It tells a question from a later one.
    pub at_ms: i64,
}

/// A message to a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// The job that it is for.
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

/// An operator's order that one parked token goes on. It travels as a signal whose id names the hold, so that a
/// repeated or late order never releases a later hold of the same job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The token that rests.
    pub token: TokenId,
    /// The job's tenant.
    pub tenant: String,
    /// The operator's word on how its step has ended, where the outcome is unknown; none: the step is run again.
    pub verdict: Option<Verdict>,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// The prefix of the names of our own signals. No flow waits for a signal with a dot in its name.
const OWN: &str = "meanwhile.";
/// The name of the signal that a [`Resume`] is.
const RESUME: &str = "meanwhile.resume";
/// The member of its payload that carries a verdict.
const VERDICT: &str = "verdict";

impl From<Resume> for Signal {
    fn from(resume: Resume) -> Self {
        let Resume { token: TokenId { job, branch, hop }, tenant, verdict, at_ms } = resume;
        let mut id = format!("{branch}:{hop}");
        let mut payload = json!({ "branch": branch, "hop": hop });
        if let Some(verdict) = verdict {
            id += ":verdict";
            payload[VERDICT] = verdict.to_json();
        }
        Self { job, tenant, name: RESUME.to_owned(), id, payload: Some(payload), at_ms }
    }
}

/// The name of the signal that tells the keeper of holds of a [`Cancel`].
const CANCEL: &str = "meanwhile.cancel";

impl From<&Cancel> for Signal {
    /// The cancel's features do not travel with it: this version has none.
    fn from(cancel: &Cancel) -> Self {
        let Cancel { job, tenant, requested_by, reason, at_ms, id, .. } = cancel.clone();
        let payload = Some(json!({ "by": requested_by, "reason": reason }));
        Self { job, tenant, name: CANCEL.to_owned(), id, payload, at_ms }
    }
}

impl Signal {
    /// The cancel, if this signal tells of one.
    pub fn as_cancel(&self) -> Option<Cancel> {
        if self.name != CANCEL {
            return None;
        }
        let payload = self.payload.as_ref().unwrap_or(&Value::Null);
        Some(Cancel {
            job: self.job,
            tenant: self.tenant.clone(),
            requested_by: payload["by"].as_str().unwrap_or_default().to_owned(),
            reason: payload["reason"].as_str().map(str::to_owned),
            at_ms: self.at_ms,
            id: self.id.clone(),
            requires: Vec::new(),
        })
    }

    /// True for a signal that a flow may wait for.
    pub fn is_for_flow(&self) -> bool {
        !self.name.starts_with(OWN)
    }

    /// Its payload, JSON in UTF-8.
    pub fn payload_bytes(&self) -> Option<Vec<u8>> {
        self.payload.as_ref().map(|payload| payload.to_string().into_bytes())
    }

    /// The feature that whoever takes it in must have.
    pub(crate) fn requires(&self) -> Option<&'static str> {
        match self.name.as_str() {
            CANCEL => Some(CANCELS),
            // Whoever overlooks it would have the call made again.
            RESUME => {
                let said = self.payload.as_ref()?.get(VERDICT)?;
                Some(Verdict::from_json(said).map_or(VERDICTS, |verdict| verdict.said.requires()))
            }
            _ => self.is_for_flow().then_some(SIGNALS),
        }
    }

    /// The operator's order, if this signal is one.
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
        let verdict = payload.get(VERDICT).map(|said| {
            let read = Verdict::from_json(said);
            read.ok_or_else(|| DecodeError::field("payload", payload))
        });
        Ok(Some(Resume { token, tenant: self.tenant.clone(), verdict: verdict.transpose()?, at_ms: self.at_ms }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_travels_as_a_signal_of_our_own_that_older_versions_leave_alone() {
        let job = "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".parse().expect("a job's id");
        let (tenant, requested_by, id) = ("t".to_owned(), "ann".to_owned(), "1".to_owned());
        for reason in [None, Some("why".to_owned())] {
            let (tenant, requested_by, id) = (tenant.clone(), requested_by.clone(), id.clone());
            let cancel = Cancel { job, tenant, requested_by, reason, at_ms: 7, id, requires: Vec::new() };
            let signal = Signal::from(&cancel);
            assert_eq!((signal.is_for_flow(), signal.requires()), (false, Some(CANCELS)));
            assert_eq!((signal.as_resume().expect("no resume"), signal.as_cancel()), (None, Some(cancel)));
        }
        let other = Signal {
            name: "cancel".to_owned(),
            ..Signal::from(Resume {
                token: TokenId { job, branch: String::new(), hop: 1 },
                tenant,
                verdict: None,
                at_ms: 1,
            })
        };
        assert_eq!((other.as_cancel(), other.requires()), (None, Some(SIGNALS)));
    }
}
