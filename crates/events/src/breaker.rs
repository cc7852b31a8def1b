//! Breakers of downstreams: their states, as `meanwhile.breakers` has them (JSON, compacted), and the news by which
//! their owner learns of calls and of operators' orders.
//!
//! The orchestrator owns every breaker. Workers see calls, and tell what they saw by records on `meanwhile.waits` whose
//! key is the downstream: one partition, one order.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::DecodeError;
use crate::field::unknown_word;
use crate::header;
use crate::headers::Headers;
use crate::record::{Inbound, Record};
use crate::topic::Topics;
use crate::trace::Trace;

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls are made.
    Closed,
    /// No calls are made.
    Open,
    /// Only those calls are made that the breaker lets pass: one probe, then the rest at a rate.
    HalfOpen,
}

impl BreakerState {
    /// The word used on Kafka and over HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A breaker, as workers know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// The downstream.
    pub downstream: String,
    /// Its state.
    pub state: BreakerState,
    /// Rises with every change.
    pub epoch: u64,
    /// True: an operator has set the state, and no call changes it.
    #[serde(default)]
    pub forced: bool,
}

impl Breaker {
    /// The record on `meanwhile.breakers`. Its message id is `<downstream>:breaker:<epoch>`.
    pub fn record(&self, topics: &Topics, trace: &Trace) -> Record {
        let mut headers = Headers::default();
        trace.write(&mut headers);
        headers.push_text(header::MESSAGE_ID, format_args!("{}:breaker:{}", self.downstream, self.epoch));
        let value = serde_json::to_vec(self).expect("texts and numbers are JSON");
        let key = self.downstream.clone().into_bytes();
        Record { topic: topics.breakers(), key: Some(key), value: Some(value), headers }
    }

    /// Reads a record of `meanwhile.breakers`. None for a tombstone.
    ///
    /// # Errors
    /// The value is none of ours.
    pub fn read(record: &Inbound) -> Result<Option<Self>, DecodeError> {
        let Some(value) = &record.value else { return Ok(None) };
        serde_json::from_slice(value).map(Some).map_err(|error| DecodeError::field("breaker", error))
    }
}

/// News for the owner of a breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerNews {
    /// The downstream.
    pub downstream: String,
    /// What is said.
    pub said: BreakerSaid,
    /// Tells one piece of news from another.
    pub id: String,
    /// The time in milliseconds since the Unix epoch, by the clock of whoever says it. No decision depends on it.
    pub at_ms: i64,
}

/// What is said to the owner of a breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BreakerSaid {
    /// Too many of a worker's last calls failed.
    Failing {
        /// The state that the worker knew.
        epoch: u64,
        /// The calls that it looked at.
        calls: u32,
        /// Those of them that failed.
        failures: u32,
    },
    /// A probe has ended.
    Probed {
        /// The state that the probe was for.
        epoch: u64,
        /// True: the downstream has answered.
        answered: bool,
    },
    /// An operator's order.
    Order {
        /// [`BreakerState::Open`] or [`BreakerState::Closed`]: the state from now on, whatever calls do; none: calls
        /// decide again.
        state: Option<BreakerState>,
        /// The reason, in their words.
        reason: Option<String>,
        /// Whoever gave it.
        by: String,
    },
}

const FAILING: &str = "failing";
const PROBED: &str = "probed";
const ORDER: &str = "order";

impl BreakerSaid {
    /// The word, and what belongs to it.
    pub(crate) fn to_words(&self) -> (&'static str, Value) {
        match self {
            Self::Failing { epoch, calls, failures } => {
                (FAILING, json!({ "epoch": epoch, "calls": calls, "failures": failures }))
            }
            Self::Probed { epoch, answered } => (PROBED, json!({ "epoch": epoch, "answered": answered })),
            Self::Order { state, reason, .. } => {
                (ORDER, json!({ "state": state.map_or("auto", BreakerState::as_str), "reason": reason }))
            }
        }
    }

    /// The reverse of [`BreakerSaid::to_words`].
    pub(crate) fn from_words(word: &str, payload: &Value, by: String) -> Result<Self, DecodeError> {
        let wrong = || DecodeError::field("payload", payload);
        let count = |name: &str| payload[name].as_u64().and_then(|count| u32::try_from(count).ok()).ok_or_else(wrong);
        let epoch = || payload["epoch"].as_u64().ok_or_else(wrong);
        match word {
            FAILING => Ok(Self::Failing { epoch: epoch()?, calls: count("calls")?, failures: count("failures")? }),
            PROBED => {
                let answered = payload["answered"].as_bool().ok_or_else(wrong)?;
                Ok(Self::Probed { epoch: epoch()?, answered })
            }
            ORDER => {
                let state = match payload["state"].as_str() {
                    Some("open") => Some(BreakerState::Open),
                    Some("closed") => Some(BreakerState::Closed),
                    Some("auto") => None,
                    _ => return Err(wrong()),
                };
                Ok(Self::Order { state, reason: payload["reason"].as_str().map(str::to_owned), by })
            }
            _ => Err(unknown_word("reason", word)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_of_a_breaker_reads_back() {
        let breaker =
            Breaker { downstream: "payment:8080".to_owned(), state: BreakerState::HalfOpen, epoch: 7, forced: false };
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::parse(Some(trace), None).expect("a trace");
        let Record { topic, key, value, headers } = breaker.record(&Topics::new("m"), &trace);
        assert_eq!(topic, "m.breakers");
        let record = Inbound { topic, key, value, headers, ..Inbound::default() };
        assert_eq!(Breaker::read(&record).expect("a breaker"), Some(breaker));
        assert_eq!(Breaker::read(&Inbound::default()).expect("a tombstone"), None);
        assert!(Breaker::read(&Inbound { value: Some(b"{}".to_vec()), ..Inbound::default() }).is_err());
    }

    #[test]
    fn every_word_reads_back_and_an_unknown_one_is_a_later_versions() {
        let order = |state| BreakerSaid::Order { state, reason: Some("maintenance".to_owned()), by: "ann".to_owned() };
        for said in [
            BreakerSaid::Failing { epoch: 3, calls: 40, failures: 21 },
            BreakerSaid::Probed { epoch: 4, answered: true },
            order(Some(BreakerState::Open)),
            order(Some(BreakerState::Closed)),
            order(None),
        ] {
            let (word, payload) = said.to_words();
            assert_eq!(BreakerSaid::from_words(word, &payload, "ann".to_owned()).expect("a word of ours"), said);
        }
        let later = BreakerSaid::from_words("rate", &Value::Null, String::new());
        assert!(matches!(later, Err(DecodeError::Newer(_))), "{later:?}");
        assert!(BreakerSaid::from_words("probed", &json!({ "epoch": 1 }), String::new()).is_err());
    }
}
