//! `Wait` as Avro has it: one flat record, whose `kind` says which fields count.

use std::borrow::Cow;

use flow::id::TokenId;
use flow::slip::{Hold, HoldReason, Slip};
use serde::{Deserialize, Serialize};

use super::{Alive, Outcome, Question, RunningCall, Signal, Turn, Unread, UnreadRest, Wait};
use crate::error::{DecodeError, EncodeError};
use crate::field::{SIGNALS, check_features, job, long, unknown_word};
use crate::headers::Header;
use crate::json::{Bytes, Json};
use crate::record::Record;

mod breaker;

const HOLD: &str = "hold";
const SIGNAL: &str = "signal";
const OUTCOME: &str = "outcome";
const ALIVE: &str = "alive";
const QUESTION: &str = "question";
const UNREAD: &str = "unread";
const BREAKER: &str = "breaker";

#[derive(Debug, Default, Serialize, Deserialize)]
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
    #[serde(default)]
    lane: Cow<'a, str>,
    #[serde(default)]
    worker: Cow<'a, str>,
    #[serde(default)]
    attempt: u32,
    #[serde(default)]
    lease_ms: Option<i64>,
    #[serde(default)]
    behind: Cow<'a, str>,
    #[serde(default)]
    place: u32,
    #[serde(default)]
    records: Vec<SuccessorWire<'a>>,
    #[serde(default)]
    requires: Vec<Cow<'a, str>>,
    #[serde(default)]
    on_timeout: Option<Cow<'a, str>>,
    #[serde(default)]
    limit: Option<Cow<'a, str>>,
    #[serde(default)]
    join: Option<Cow<'a, str>>,
    #[serde(default)]
    join_count: Option<i64>,
    #[serde(default)]
    actor: Option<Cow<'a, str>>,
    #[serde(default)]
    expires_at_ms: Option<i64>,
    #[serde(default)]
    data: Option<Json<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Successor")]
struct SuccessorWire<'a> {
    topic: Cow<'a, str>,
    #[serde(default)]
    key: Option<Bytes>,
    #[serde(default)]
    value: Option<Bytes>,
    #[serde(default)]
    headers: Vec<HeaderWire<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Header")]
struct HeaderWire<'a> {
    name: Cow<'a, str>,
    #[serde(default)]
    value: Option<Bytes>,
}

impl<'a> WaitWire<'a> {
    /// `slip`: the slip of [`Wait::hold`], encoded.
    pub(crate) fn new(wait: &'a Wait, slip: Option<Vec<u8>>) -> Result<Self, EncodeError> {
        match wait {
            Wait::Hold(hold) => Self::from_hold(hold, slip),
            Wait::Running(running) => Self::from_running(running, slip),
            Wait::Turn(turn) => Self::from_turn(turn, slip),
            Wait::Unread(unread) => Self::from_unread(unread),
            Wait::Signal(signal) => Self::from_signal(signal),
            Wait::Outcome(outcome) => Ok(Self::from_outcome(outcome)),
            Wait::Breaker(news) => Self::from_breaker(news),
            Wait::Alive(Alive { worker, lease_ms, at_ms }) => Ok(Self {
                kind: ALIVE.into(),
                worker: worker.into(),
                lease_ms: Some(long("lease_ms", *lease_ms)?),
                at_ms: Some(*at_ms),
                ..Self::default()
            }),
            Wait::Question(Question { worker, round, at_ms }) => Ok(Self {
                kind: QUESTION.into(),
                worker: worker.into(),
                place: *round,
                at_ms: Some(*at_ms),
                ..Self::default()
            }),
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
            signal: hold.signal.as_deref().map(Cow::Borrowed),
            limit: hold.limit.as_deref().map(Cow::Borrowed),
            requires: hold.signal.iter().map(|_| SIGNALS.into()).collect(),
            ..Self::default()
        })
    }

    fn from_running(running: &'a RunningCall, slip: Option<Vec<u8>>) -> Result<Self, EncodeError> {
        Ok(Self {
            lane: running.hold.slip.record_key().into(),
            worker: running.worker.as_str().into(),
            attempt: running.attempt,
            lease_ms: Some(long("lease_ms", running.lease_ms)?),
            ..Self::from_hold(&running.hold, slip)?
        })
    }

    fn from_turn(turn: &'a Turn, slip: Option<Vec<u8>>) -> Result<Self, EncodeError> {
        Ok(Self {
            lane: turn.hold.slip.record_key().into(),
            behind: turn.behind.to_string().into(),
            place: turn.place,
            ..Self::from_hold(&turn.hold, slip)?
        })
    }

    fn from_unread(unread: &'a Unread) -> Result<Self, EncodeError> {
        let (release_after_ms, behind, place) = match &unread.rest {
            UnreadRest::Until(ms) => (Some(long("release_after_ms", *ms)?), Cow::default(), 0),
            UnreadRest::Behind(token, place) => (None, token.to_string().into(), *place),
        };
        Ok(Self {
            kind: UNREAD.into(),
            job: unread.token.job.to_string().into(),
            branch: unread.token.branch.as_str().into(),
            hop: unread.token.hop,
            id: Some(unread.read_at.as_str().into()),
            lane: unread.lane.as_str().into(),
            records: vec![SuccessorWire::from(&unread.record)],
            release_after_ms,
            behind,
            place,
            ..Self::default()
        })
    }

    fn from_signal(signal: &'a Signal) -> Result<Self, EncodeError> {
        Ok(Self {
            kind: SIGNAL.into(),
            job: signal.job.to_string().into(),
            tenant: signal.tenant.as_str().into(),
            signal: Some(signal.name.as_str().into()),
            id: Some(signal.id.as_str().into()),
            payload: Json::optional("payload", signal.payload.as_ref())?,
            at_ms: Some(signal.at_ms),
            requires: signal.requires().map(Cow::from).into_iter().collect(),
            ..Self::default()
        })
    }

    fn from_outcome(outcome: &'a Outcome) -> Self {
        Self {
            kind: OUTCOME.into(),
            job: outcome.token.job.to_string().into(),
            tenant: outcome.tenant.as_str().into(),
            branch: outcome.token.branch.as_str().into(),
            hop: outcome.token.hop,
            lane: outcome.lane.as_str().into(),
            worker: outcome.worker.as_str().into(),
            records: outcome.records.iter().map(SuccessorWire::from).collect(),
            ..Self::default()
        }
    }

    /// Refuses what says more than this version heeds: it is not to be taken in by half.
    pub(crate) fn check_features(&self) -> Result<(), DecodeError> {
        let said = [
            ("on_timeout", self.on_timeout.is_some()),
            ("join", self.join.is_some()),
            ("join_count", self.join_count.is_some()),
            ("actor", self.actor.is_some() && self.kind != BREAKER),
            ("expires_at_ms", self.expires_at_ms.is_some()),
            ("data", self.data.is_some()),
        ];
        check_features(&self.requires)?;
        match said.iter().find(|(_, said)| *said) {
            Some((field, _)) => Err(DecodeError::Newer(format!("it says `{field}`"))),
            None => Ok(()),
        }
    }

    /// The slip of a hold, still encoded.
    pub(crate) fn take_slip(&mut self) -> Option<Vec<u8>> {
        self.slip.take_if(|_| self.kind == HOLD).map(|slip| slip.0)
    }

    /// `slip`: what [`Self::take_slip`] gave, decoded.
    pub(crate) fn into_wait(self, slip: Option<Slip>) -> Result<Wait, DecodeError> {
        match &*self.kind {
            HOLD => self.into_token_at_rest(slip),
            UNREAD => self.into_unread().map(Wait::Unread),
            SIGNAL => self.into_signal().map(Wait::Signal),
            OUTCOME => self.into_outcome().map(Wait::Outcome),
            BREAKER => self.into_breaker().map(Wait::Breaker),
            ALIVE => Ok(Wait::Alive(Alive {
                worker: worker(self.worker)?,
                lease_ms: duration("lease_ms", present("lease_ms", self.lease_ms)?)?,
                at_ms: present("at_ms", self.at_ms)?,
            })),
            QUESTION => Ok(Wait::Question(Question {
                worker: worker(self.worker)?,
                round: self.place,
                at_ms: present("at_ms", self.at_ms)?,
            })),
            _ => Err(unknown_word("kind", &self.kind)),
        }
    }

    fn into_token_at_rest(mut self, slip: Option<Slip>) -> Result<Wait, DecodeError> {
        let (worker, attempt, lease_ms) = (std::mem::take(&mut self.worker), self.attempt, self.lease_ms);
        let (behind, place) = (std::mem::take(&mut self.behind), self.place);
        let hold = self.into_hold(slip)?;
        match hold.reason {
            HoldReason::Running => {
                let lease_ms = duration("lease_ms", present("lease_ms", lease_ms)?)?;
                Ok(Wait::Running(RunningCall { hold, worker: self::worker(worker)?, attempt, lease_ms }))
            }
            HoldReason::Turn => Ok(Wait::Turn(Turn { hold, behind: token(&behind)?, place })),
            HoldReason::Backoff
            | HoldReason::Attention
            | HoldReason::MissingStep
            | HoldReason::Room
            | HoldReason::Timer
            | HoldReason::Signal
            | HoldReason::Breaker
            | HoldReason::Limit
            | HoldReason::Other(_) => Ok(Wait::Hold(hold)),
            // Its slip would be missing.
            HoldReason::Unread => Err(DecodeError::field("reason", hold.reason.as_str())),
        }
    }

    fn into_hold(self, slip: Option<Slip>) -> Result<Hold, DecodeError> {
        let reason = present("reason", self.reason)?;
        let slip = present("slip", slip)?;
        // Said twice, so that others can read it without the slip; it must be the same.
        if (slip.job, &*slip.branch, slip.hop) != (job("job", &self.job)?, &*self.branch, self.hop) {
            return Err(DecodeError::field("slip", format!("of {}:{}:{}", slip.job, slip.branch, slip.hop)));
        }
        Ok(Hold {
            slip,
            queue: present("queue", self.queue)?.into_owned(),
            reason: HoldReason::read(&reason).ok_or_else(|| DecodeError::field("reason", &reason))?,
            release_after_ms: self.release_after_ms.map(|ms| duration("release_after_ms", ms)).transpose()?,
            signal: self.signal.map(Cow::into_owned),
            limit: self.limit.map(Cow::into_owned),
        })
    }

    fn into_unread(self) -> Result<Unread, DecodeError> {
        let rest = match self.release_after_ms {
            Some(ms) => UnreadRest::Until(duration("release_after_ms", ms)?),
            None => UnreadRest::Behind(token(&self.behind)?, self.place),
        };
        Ok(Unread {
            token: TokenId { job: job("job", &self.job)?, branch: self.branch.into_owned(), hop: self.hop },
            lane: self.lane.into_owned(),
            read_at: present("id", self.id)?.into_owned(),
            record: present("records", self.records.into_iter().next())?.into(),
            rest,
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

    fn into_outcome(self) -> Result<Outcome, DecodeError> {
        Ok(Outcome {
            token: TokenId { job: job("job", &self.job)?, branch: self.branch.into_owned(), hop: self.hop },
            tenant: self.tenant.into_owned(),
            lane: self.lane.into_owned(),
            worker: worker(self.worker)?,
            records: self.records.into_iter().map(Record::from).collect(),
        })
    }
}

impl<'a> From<&'a Record> for SuccessorWire<'a> {
    fn from(record: &'a Record) -> Self {
        let plain = |value: Option<&[u8]>| value.map(|value| Bytes(value.to_vec()));
        let header = |(name, value): Header<'a>| HeaderWire { name: name.into(), value: plain(value) };
        Self {
            topic: record.topic.as_str().into(),
            key: bytes(&record.key),
            value: bytes(&record.value),
            headers: record.headers.iter().map(header).collect(),
        }
    }
}

impl From<SuccessorWire<'_>> for Record {
    fn from(wire: SuccessorWire<'_>) -> Self {
        let plain = |bytes: Option<Bytes>| bytes.map(|bytes| bytes.0);
        Self {
            topic: wire.topic.into_owned(),
            key: plain(wire.key),
            value: plain(wire.value),
            headers: wire.headers.into_iter().map(|header| (header.name, plain(header.value))).collect(),
        }
    }
}

fn bytes(value: &Option<Vec<u8>>) -> Option<Bytes> {
    value.clone().map(Bytes)
}

fn token(text: &str) -> Result<TokenId, DecodeError> {
    text.parse().map_err(|_| DecodeError::field("behind", text))
}

fn duration(field: &'static str, ms: i64) -> Result<u64, DecodeError> {
    u64::try_from(ms).map_err(|_| DecodeError::field(field, ms))
}

fn worker(name: Cow<'_, str>) -> Result<String, DecodeError> {
    if name.is_empty() { Err(DecodeError::field("worker", name)) } else { Ok(name.into_owned()) }
}

fn present<T>(field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or_else(|| DecodeError::field(field, "null"))
}
