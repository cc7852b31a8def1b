//! News of a breaker as Avro has them.

use std::borrow::Cow;

use super::{BREAKER, WaitWire, present};
use crate::breaker::{BreakerNews, BreakerSaid};
use crate::error::{DecodeError, EncodeError};
use crate::json::Json;

impl<'a> WaitWire<'a> {
    pub(super) fn from_breaker(news: &'a BreakerNews) -> Result<Self, EncodeError> {
        let (said, payload) = news.said.to_words();
        let actor = match &news.said {
            BreakerSaid::Order { by, .. } => Some(by.as_str().into()),
            BreakerSaid::Failing { .. } | BreakerSaid::Probed { .. } => None,
        };
        Ok(Self {
            kind: BREAKER.into(),
            limit: Some(news.downstream.as_str().into()),
            reason: Some(said.into()),
            id: Some(news.id.as_str().into()),
            payload: Some(Json::owned("payload", payload)?),
            at_ms: Some(news.at_ms),
            actor,
            ..Self::default()
        })
    }

    pub(super) fn into_breaker(self) -> Result<BreakerNews, DecodeError> {
        let said = present("reason", self.reason)?;
        let payload = present("payload", self.payload)?.into_value();
        let by = self.actor.map(Cow::into_owned).unwrap_or_default();
        Ok(BreakerNews {
            downstream: present("limit", self.limit)?.into_owned(),
            said: BreakerSaid::from_words(&said, &payload, by)?,
            id: present("id", self.id)?.into_owned(),
            at_ms: present("at_ms", self.at_ms)?,
        })
    }
}
