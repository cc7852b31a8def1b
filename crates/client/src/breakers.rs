//! Breakers, as operators see them: which downstreams are not called now.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Client, Error};

/// A breaker that has ever opened.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct Breaker {
    pub downstream: String,
    /// `closed`, `open` or `half_open`.
    pub state: String,
    /// True while an operator's word holds.
    pub forced: bool,
    /// RFC 3339.
    pub since: String,
    /// The number of jobs that wait for it.
    pub waiting: u64,
    pub reason: Option<String>,
    /// RFC 3339.
    pub next_probe_at: Option<String>,
}

#[derive(Deserialize)]
struct Breakers {
    breakers: Vec<Breaker>,
}

/// What an operator wants of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BreakerOrder {
    /// No calls, until another order comes.
    Open,
    /// All calls, however many fail.
    Closed,
    /// Its calls decide.
    Auto,
}

#[derive(Serialize)]
struct Order<'a> {
    state: BreakerOrder,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Client {
    /// Every breaker that has ever opened.
    ///
    /// # Errors
    /// [`Error::Problem`] when the database does not answer.
    pub async fn breakers(&self) -> Result<Vec<Breaker>, Error> {
        Ok(self.get::<Breakers>("/v1/breakers").await?.breakers)
    }

    /// The same as the API sent it.
    ///
    /// # Errors
    /// As [`Client::breakers`].
    pub async fn breakers_document(&self) -> Result<Value, Error> {
        self.get("/v1/breakers").await
    }

    /// Sets a breaker, for all workers. May be repeated. False if no active flow names the downstream, and there was no
    /// breaker of it.
    ///
    /// # Errors
    /// [`Error::Problem`] when the order is malformed, or cannot be stored now.
    pub async fn set_breaker(
        &self,
        downstream: &str,
        state: BreakerOrder,
        reason: Option<&str>,
    ) -> Result<bool, Error> {
        let name: String = url::form_urlencoded::byte_serialize(downstream.as_bytes()).collect();
        // In a path, a plus is no space.
        let path = format!("/v1/breakers/{}", name.replace('+', "%20"));
        let request = self.http.put(format!("{}{path}", self.url)).json(&Order { state, reason });
        let answer: Value = self.answered(request).await?.json().await.map_err(Error::Unreadable)?;
        // An earlier version does not say.
        Ok(answer["known"].as_bool().unwrap_or(true))
    }
}
